"""Gives waiting requests to workers. Owns every queue and the account of what each worker holds; runs no model."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

from erg_server.clock import Clock
from erg_server.errors import CancelledError, DeadlineExceededError, ErgError, InternalError, UnavailableError
from erg_server.repository.spec import ModelSpec
from erg_server.request import InferenceResponse
from erg_server.scheduling.admission import QueueLimits, admit
from erg_server.scheduling.batch import BatchLayout
from erg_server.scheduling.batcher import BatchLimits, DynamicBatcher, Ready, WaitUntil
from erg_server.scheduling.model_queue import DispatchedBatch, ModelQueue
from erg_server.scheduling.placement import balance_rows, share_rows
from erg_server.scheduling.ports import SchedulableWorker, Timer, Timers
from erg_server.scheduling.request_queue import QueuedRequest, RequestState
from erg_server.scheduling.worker_ledger import WorkerLedger
from erg_server.telemetry.meter import FailureReason, ModelMeter
from erg_server.workers.process import BatchResult

log = logging.getLogger(__name__)

_FINISHED = RequestState.FINISHED
_WHEN_TOLD_NS = sys.maxsize
"""No time brings it about: a worker will say when it has a slot."""

HANDOVER_NS = 100_000
"""About what a batch costs beside its model: front and worker wake for it, which took 270 µs of CPU here for batches of
a few rows (docs/benchmarks.md). Batches that run shorter than that are worth gathering, not spreading."""
_LATE_NS = 3 * HANDOVER_NS
"""How long a short batch is waited for; then something else holds its worker up."""


class Scheduler:
    """Admits requests, lets batches go when a worker is free (or nearly), and takes answers back."""

    def __init__(self, *, clock: Clock, timers: Timers, limits: QueueLimits | None = None) -> None:
        self._clock = clock
        self._timers = timers
        self._limits = limits or QueueLimits()
        self._ledger = WorkerLedger()
        self._queues: dict[int, ModelQueue] = {}
        self._waiting: dict[int, ModelQueue] = {}
        self._scheduled = False
        self._timer: Timer | None = None
        self._timer_ns = 0

    def add_worker(self, worker: SchedulableWorker) -> None:
        """Let a worker take batches from now on."""
        self._ledger.add(worker)

    def worker_available(self, worker: SchedulableWorker) -> None:
        """A worker came up, freed a slot or loaded a model."""
        self._ledger.changed(worker)
        if self._waiting:
            self._wake()

    def open(self, *, handle: int, spec: ModelSpec, version: str, meter: ModelMeter) -> ModelQueue:
        """Start taking requests for a loaded version."""
        slot_bytes = self._ledger.slot_bytes(default=1 << 28)
        # Outputs share the slot with the inputs, so inputs may fill half of it.
        batcher = DynamicBatcher(spec.batching, BatchLimits.of(spec, slot_bytes // 2))
        queue = ModelQueue(
            handle=handle, spec=spec, version=version, meter=meter, layout=BatchLayout(spec), batcher=batcher
        )
        self._queues[handle] = queue
        return queue

    async def drain(self, queue: ModelQueue) -> None:
        """Finish what the version accepted, without its batching delay, and return when nothing is left."""
        queue.batcher.flushing = True
        if not queue.idle:
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.drain_waiters.append(drained)
            self._wake()
            await drained

    def fail_waiting(self, queue: ModelQueue, error: ErgError) -> None:
        """Answer every request that waits for a version with `error`: it cannot be brought onto a worker."""
        for entry in queue.batcher.drain():
            queue.meter.dequeued()
            self._fail(queue, entry, error, "REJECTED")
        self._check_drained(queue)

    def close(self, queue: ModelQueue) -> None:
        """Forget a version; requests that still wait are answered UNAVAILABLE."""
        queue.closed = True
        for entry in queue.batcher.drain():
            queue.meter.dequeued()
            error = UnavailableError(f"model '{queue.spec.name}' version {queue.version} was unloaded")
            self._fail(queue, entry, error, "REJECTED")
        self._queues.pop(queue.handle, None)
        self._waiting.pop(queue.handle, None)
        self._check_drained(queue)

    def waiting(self, queue: ModelQueue) -> int:
        """Requests of this version that wait."""
        return len(queue.batcher.queue)

    def enqueue(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        """Admit a request and queue it; its `on_done` is called once, later.

        Raises:
            ErgError: it was not admitted (see `admission.admit`); `on_done` is then never called.
        """
        if queue.closed:
            raise UnavailableError(f"model '{queue.spec.name}' version {queue.version} was unloaded")
        now_ns = self._clock.now_ns()
        try:
            admission = admit(
                entry.request,
                nbytes=entry.nbytes,
                queue=queue.batcher.queue,
                policy=queue.spec.batching,
                limits=self._limits,
                now_ns=now_ns,
            )
        except ErgError:
            queue.meter.failed("REJECTED", now_ns - entry.request.arrival_ns)
            raise
        entry.level, entry.expires_ns, entry.delayable = admission
        entry.phases.queued_ns = now_ns
        if queue.keeps_order:
            queue.keep_order(entry)
        queue.batcher.offer(entry)
        queue.meter.enqueued()
        self._waiting[queue.handle] = queue
        # Requests that arrive in one pass of the event loop are dispatched together at its end.
        self._wake()

    def cancel(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        """The caller went away: a waiting request never runs, a running one's answer is dropped."""
        if queue.batcher.cancel(entry):
            queue.meter.dequeued()
            self._fail(queue, entry, CancelledError("the caller cancelled the request"), "CANCELED")
            self._check_drained(queue)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._timers.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Let every batch go that may, then set the timer for the next thing that time alone brings about."""
        self._scheduled = False
        now_ns = self._clock.now_ns()
        wake_ns: int | None = None
        blocked: set[int] = set()
        for queue in list(self._waiting.values()):
            self._expire(queue, now_ns)
        while (choice := self._next_ready(now_ns, blocked)) is not None:
            queue, ready, timer_ns = choice
            if ready is None:
                wake_ns = _earlier(wake_ns, timer_ns)
                break
            later_ns = self._place(queue, ready, now_ns)
            if later_ns is not None:
                blocked.add(queue.handle)
                wake_ns = _earlier(wake_ns, later_ns)
            elif not queue.batcher.queue:
                self._waiting.pop(queue.handle, None)
        for queue in self._waiting.values():
            wake_ns = _earlier(wake_ns, queue.batcher.queue.next_expiry_ns())
        self._set_timer(wake_ns, now_ns)

    def _next_ready(self, now_ns: int, blocked: set[int]) -> tuple[ModelQueue, Ready | None, int | None] | None:
        """The ready batch whose oldest request waited longest over all models, or when one becomes ready."""
        best: tuple[ModelQueue, Ready] | None = None
        wait: tuple[ModelQueue, None, int | None] | None = None
        for queue in list(self._waiting.values()):
            if queue.handle in blocked:
                continue
            outcome = queue.batcher.poll(now_ns)
            if isinstance(outcome, Ready):
                if best is None or outcome.oldest_ns < best[1].oldest_ns:
                    best = queue, outcome
            elif isinstance(outcome, WaitUntil):
                at_ns = _earlier(None if wait is None else wait[2], outcome.at_ns)
                wait = queue, None, at_ns
            else:
                del self._waiting[queue.handle]
        return (*best, None) if best is not None else wait

    def _place(self, queue: ModelQueue, ready: Ready, now_ns: int) -> int | None:
        """Give one batch to the best worker. None if it went; otherwise when to look again."""
        if queue.gather_until_ns > now_ns and ready.waiting_rows < min(ready.limit_rows, queue.running_rows):
            return queue.gather_until_ns
        able = self._ledger.able(queue.handle)
        worker = self._ledger.soonest(able)
        if worker is None:
            return _WHEN_TOLD_NS
        if ready.waiting_rows < ready.limit_rows * len(able) and (at_ns := self._ledger.stage_ns(worker)) > now_ns:
            return at_ns
        rows = self._share(queue, ready, worker, able, now_ns)
        self._submit(queue, queue.batcher.take(ready, rows), ready, worker, now_ns)
        return None

    def _share(
        self,
        queue: ModelQueue,
        ready: Ready,
        worker: SchedulableWorker,
        able: Sequence[SchedulableWorker],
        now_ns: int,
    ) -> int:
        if len(able) == 1 or ready.limit_rows == 1 or ready.waiting_rows == 1:
            return ready.limit_rows
        if queue.latency.predict_ns(ready.key, min(ready.waiting_rows, ready.limit_rows)) < HANDOVER_NS:
            return ready.limit_rows
        start_ns = self._ledger.start_ns(worker, now_ns)
        others = [other for other in able if other is not worker]
        soonest = share_rows(
            ready.waiting_rows,
            ready.limit_rows,
            [self._ledger.free_in_ns(other, start_ns) for other in others],
            lambda rows: queue.latency.predict_ns(ready.key, rows),
        )
        held = [queue.held_rows.get(other.name, 0) for other in others]
        return max(soonest, balance_rows(ready.waiting_rows, ready.limit_rows, held))

    def _submit(
        self, queue: ModelQueue, entries: list[QueuedRequest], ready: Ready, worker: SchedulableWorker, now_ns: int
    ) -> None:
        rows = sum(entry.rows for entry in entries)
        for entry in entries:
            entry.phases.dispatched_ns = now_ns
        queue.meter.dequeued(len(entries))
        try:
            inputs, padded, real = queue.layout.assemble(entries)
            batch = DispatchedBatch(
                entries=entries,
                rows=rows,
                key=ready.key,
                reason=ready.reason.value,
                predicted_ns=round(queue.latency.predict_ns(ready.key, rows)),
                padded=padded,
                real=real,
            )
            worker.submit(queue.handle, inputs, lambda result: self._on_done(queue, worker, batch, result), rows)
        except Exception as error:
            # Whatever it is, these requests must be answered and the others go on.
            if not isinstance(error, ErgError):
                log.exception("a batch of model %s could not be handed to worker %s", queue.spec.name, worker.name)
                error = InternalError(f"model '{queue.spec.name}': the batch could not be handed to a worker")
            for entry in entries:
                self._fail(queue, entry, error, "OTHER")
            self._check_drained(queue)
            return
        self._ledger.charge(worker, now_ns, batch.predicted_ns)
        # What comes while a short batch is under way makes the next one larger: one after the other, they end sooner
        # than two that are handed over apart.
        queue.gather_until_ns = now_ns + _LATE_NS if batch.predicted_ns < HANDOVER_NS else 0
        queue.running += 1
        queue.held_rows[worker.name] = queue.held_rows.get(worker.name, 0) + rows

    def _on_done(
        self, queue: ModelQueue, worker: SchedulableWorker, batch: DispatchedBatch, result: BatchResult | ErgError
    ) -> None:
        queue.running -= 1
        queue.held_rows[worker.name] -= batch.rows
        if isinstance(result, ErgError):
            for entry in batch.entries:
                self._fail(queue, entry, result, "BACKEND")
        else:
            actual_ns = result.input_ns + result.infer_ns + result.output_ns
            queue.latency.observe(batch.key, batch.rows, actual_ns)
            self._ledger.correct(worker, actual_ns - batch.predicted_ns)
            self._answer(queue, batch, result)
        self._check_drained(queue)

    def _answer(self, queue: ModelQueue, batch: DispatchedBatch, result: BatchResult) -> None:
        try:
            answers = queue.layout.split(batch.entries, result.outputs)
        except ErgError as error:
            for entry in batch.entries:
                self._fail(queue, entry, error, "BACKEND")
            return
        input_ns, infer_ns, output_ns = result.input_ns, result.infer_ns, result.output_ns
        queue.meter.executed(
            batch.rows,
            batch.reason,
            input_ns=input_ns,
            infer_ns=infer_ns,
            output_ns=output_ns,
            padded_elements=batch.padded,
            real_elements=batch.real,
        )
        now_ns = self._clock.now_ns()
        name, version, rows = queue.spec.name, queue.version, batch.rows
        for entry in batch.entries:
            phases = entry.phases
            phases.completed_ns = now_ns
            phases.compute_input_ns = input_ns
            phases.compute_infer_ns = infer_ns
            phases.compute_output_ns = output_ns
            phases.batch_rows = rows
            entry.state = _FINISHED
        queue.meter.succeeded([entry.phases for entry in batch.entries], rows)
        for entry, outputs in zip(batch.entries, answers, strict=True):
            entry.on_done(
                InferenceResponse(
                    model_name=name, model_version=version, id=entry.request.id, outputs=outputs, phases=entry.phases
                )
            )

    def _expire(self, queue: ModelQueue, now_ns: int) -> None:
        for entry in queue.batcher.expire(now_ns):
            queue.meter.dequeued()
            waited_ms = (now_ns - entry.phases.queued_ns) / 1e6
            error = DeadlineExceededError(
                f"the request's time ran out after {waited_ms:.1f} ms in the queue of model '{queue.spec.name}', "
                f"which holds {len(queue.batcher.queue)} more"
            )
            self._fail(queue, entry, error, "REJECTED")
            self._check_drained(queue)

    def _fail(self, queue: ModelQueue, entry: QueuedRequest, error: ErgError, reason: FailureReason) -> None:
        entry.state = RequestState.FINISHED
        queue.meter.failed(reason, self._clock.now_ns() - entry.request.arrival_ns)
        entry.on_done(error)

    def _check_drained(self, queue: ModelQueue) -> None:
        if queue.drain_waiters and queue.idle:
            for waiter in queue.drain_waiters:
                if not waiter.done():
                    waiter.set_result(None)
            queue.drain_waiters.clear()

    def _set_timer(self, at_ns: int | None, now_ns: int) -> None:
        if self._timer is not None:
            if at_ns == self._timer_ns:
                return
            self._timer.cancel()
            self._timer = None
        if at_ns is not None and at_ns != _WHEN_TOLD_NS:
            self._timer_ns = at_ns
            self._timer = self._timers.call_later(max(0, at_ns - now_ns) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()


def _earlier(one_ns: int | None, other_ns: int | None) -> int | None:
    if one_ns is None or other_ns is None:
        return other_ns if one_ns is None else one_ns
    return min(one_ns, other_ns)
