"""Admits requests, has their batches dispatched and takes answers back. Owns every queue; runs no model."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Final

from erg_server.clock import Clock
from erg_server.energy.batch_log import BatchLog, Share
from erg_server.errors import (
    CancelledError,
    DeadlineExceededError,
    ErgError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from erg_server.repository.spec import ModelSpec
from erg_server.request import InferenceResponse
from erg_server.scheduling.admission import QueueLimits, admit
from erg_server.scheduling.batch import BatchLayout
from erg_server.scheduling.batch_shares import shares_of
from erg_server.scheduling.batcher import BatchLimits, DynamicBatcher
from erg_server.scheduling.deadlines import set_deadline
from erg_server.scheduling.dispatcher import HANDOVER_NS, Dispatcher
from erg_server.scheduling.fleet import WorkerAccount
from erg_server.scheduling.latency_model import Curves, LatencyModel
from erg_server.scheduling.model_queue import DispatchedBatch, ModelQueue
from erg_server.scheduling.poll_outcome import Ready
from erg_server.scheduling.ports import SchedulableWorker, Timers
from erg_server.scheduling.request_queue import QueuedRequest, RequestState
from erg_server.scheduling.slack import BATCH_SHARE, SlackPolicy
from erg_server.telemetry.meter import FailureReason, ModelMeter, RefusalReason
from erg_server.workers.process import BatchResult

log = logging.getLogger(__name__)

_FINISHED: Final = RequestState.FINISHED

_LATE_NS: Final = 3 * HANDOVER_NS
"""How long a short batch is waited for; then something else holds its worker up."""


class Scheduler:
    """Admits requests, lets batches go when a worker is free (or nearly), and takes answers back.

    `batch_log` is told of every batch, for whom and how long, so that its time and energy can be booked.
    """

    def __init__(
        self, *, clock: Clock, timers: Timers, limits: QueueLimits | None = None, batch_log: BatchLog | None = None
    ) -> None:
        self._clock = clock
        self._batch_log = batch_log
        self._limits = limits or QueueLimits()
        self._dispatcher = Dispatcher(
            clock=clock, timers=timers, submit=self._submit, expire=self._expire, drop=self._drop
        )
        # Hot path: what happens to a queue is told to the dispatcher, and nothing else is.
        self._changed = self._dispatcher.changed
        self._arrived = self._dispatcher.arrived

    def add_worker(self, worker: SchedulableWorker) -> None:
        """Let a worker take batches from now on."""
        self._dispatcher.add_worker(worker)

    def worker_available(self, worker: SchedulableWorker) -> None:
        """A worker came up, freed a slot or loaded a model."""
        self._dispatcher.worker_available(worker)

    def open(
        self, *, handle: int, spec: ModelSpec, version: str, meter: ModelMeter, curves: Curves | None = None
    ) -> ModelQueue:
        """Start taking requests for a loaded version, of which `curves` tell what is known already."""
        slot_bytes = self._dispatcher.fleets.slot_bytes(default=1 << 28)
        latency = LatencyModel(spec.objective_ns * BATCH_SHARE if spec.objective_ns else math.inf)
        latency.restore(curves or {})
        # Outputs share the slot with the inputs, so inputs may fill half of it.
        limits = BatchLimits.of(spec, slot_bytes // 2)
        batcher = DynamicBatcher(spec.batching, limits, SlackPolicy(latency) if spec.objective_ns else None)
        queue = ModelQueue(
            handle=handle,
            spec=spec,
            version=version,
            meter=meter,
            layout=BatchLayout(spec),
            batcher=batcher,
            latency=latency,
        )
        self._dispatcher.open(queue)
        return queue

    async def drain(self, queue: ModelQueue) -> None:
        """Finish what the version accepted, without its batching delay, and return when nothing is left."""
        queue.batcher.flushing = True
        if not queue.idle:
            drained: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.drain_waiters.append(drained)
            self._changed(queue)
            await drained

    def fail_waiting(self, queue: ModelQueue, error: ErgError) -> None:
        """Answer every request that waits for a version with `error`: it cannot be brought onto a worker."""
        for entry in queue.batcher.drain():
            self._dequeued(queue, entry)
            self._fail(queue, entry, error, "REJECTED")
        self._check_drained(queue)

    def close(self, queue: ModelQueue) -> None:
        """Forget a version; requests that still wait are answered UNAVAILABLE."""
        queue.closed = True
        for entry in queue.batcher.drain():
            self._dequeued(queue, entry)
            error = UnavailableError(f"model '{queue.spec.name}' version {queue.version} was unloaded")
            self._fail(queue, entry, error, "REJECTED")
        self._dispatcher.close(queue)
        self._check_drained(queue)

    def waiting(self, queue: ModelQueue) -> int:
        """Requests of this version that wait."""
        return len(queue.batcher.queue)

    def enqueue(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        """Admit a request and queue it; its `on_done` is called once, later.

        Raises:
            ErgError: it was not admitted (see `admission.admit` and `check_in_time`); `on_done` is then never called.
        """
        request = entry.request
        now_ns = self._clock.now_ns()
        try:
            if queue.closed:
                raise UnavailableError(f"model '{queue.spec.name}' version {queue.version} was unloaded")
            admission = admit(
                request,
                nbytes=entry.nbytes,
                queue=queue.batcher.queue,
                policy=queue.spec.batching,
                limits=self._limits,
                now_ns=now_ns,
            )
            entry.level, entry.expires_ns, entry.delayable = admission
            entry.phases.queued_ns = now_ns
            if queue.objective_ns or request.deadline_ns is not None:
                set_deadline(queue, entry, now_ns)
        except ErgError as error:
            queue.meter.refused(_refusal(error), now_ns - request.arrival_ns)
            raise
        if request.tenant or request.warmup:
            queue.varied = True
        if queue.keeps_order:
            queue.keep_order(entry)
        queue.batcher.offer(entry)
        queue.meter.enqueued()
        self._arrived(queue, entry)

    def cancel(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        """The caller went away: a waiting request never runs, a running one's answer is dropped."""
        if queue.batcher.cancel(entry):
            self._dequeued(queue, entry)
            self._fail(queue, entry, CancelledError("the caller cancelled the request"), "CANCELED")
            self._changed(queue)
            self._check_drained(queue)
        elif entry.state is RequestState.RUNNING:
            entry.cancelled = queue.varied = True

    def _dequeued(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        queue.meter.dequeued()
        if entry.deadline is not None:
            queue.remove_work(entry.deadline.work_ns)

    def _submit(self, queue: ModelQueue, ready: Ready, most_rows: int, account: WorkerAccount, now_ns: int) -> None:
        """Take a batch out of the queue and hand it to a worker."""
        entries = queue.batcher.take(ready, most_rows)
        rows = sum(entry.rows for entry in entries)
        for entry in entries:
            entry.phases.dispatched_ns = now_ns
        queue.meter.dequeued(len(entries))
        if queue.timed:
            queue.remove_work(sum(entry.deadline.work_ns for entry in entries if entry.deadline is not None))
        worker = account.worker
        try:
            inputs, padded, real = queue.layout.assemble(entries)
            batch = DispatchedBatch(
                entries,
                rows=rows,
                key=ready.key,
                reason=ready.reason.value,
                predicted_ns=round(queue.latency.predict_ns(ready.key, rows)),
                padded=padded,
                real=real,
            )
            worker.submit(queue.handle, inputs, lambda result: self._on_done(queue, account, batch, result), rows)
        except Exception as error:
            # Whatever it is, these requests must be answered and the others go on.
            if not isinstance(error, ErgError):
                log.exception("a batch of model %s could not be handed to worker %s", queue.spec.name, worker.name)
                error = InternalError(f"model '{queue.spec.name}': the batch could not be handed to a worker")
            for entry in entries:
                self._fail(queue, entry, error, "OTHER")
            self._check_drained(queue)
            return
        if self._batch_log is not None:
            self._batch_log.handed(worker.name, now_ns)
        account.charge(now_ns, batch.predicted_ns)
        fleet = queue.fleet
        fleet.virtual_ns = queue.share.charge(fleet.virtual_ns, batch.predicted_ns / fleet.size)
        # What comes while a short batch is under way makes the next one larger: one after the other, they end sooner
        # than two that are handed over apart.
        queue.gather_until_ns = now_ns + _LATE_NS if batch.predicted_ns < HANDOVER_NS else 0
        queue.running += 1
        queue.hold(worker.name, rows)

    def _on_done(
        self, queue: ModelQueue, account: WorkerAccount, batch: DispatchedBatch, result: BatchResult | ErgError
    ) -> None:
        try:
            self._take_back(queue, account, batch, result)
        finally:
            if self._batch_log is not None:
                self._log_batch(self._batch_log, queue, account.worker.name, batch, result)

    def _log_batch(
        self,
        batch_log: BatchLog,
        queue: ModelQueue,
        device: str,
        batch: DispatchedBatch,
        result: BatchResult | ErgError,
    ) -> None:
        if isinstance(result, ErgError):
            start_ns, end_ns = 0, self._clock.now_ns()  # Nobody tells how long it ran.
        else:
            end_ns = result.ended_ns
            start_ns = end_ns - result.input_ns - result.infer_ns - result.output_ns
        plain = not (batch.padded or queue.timed or queue.varied) and batch.entries[0].phases.completed_ns > 0
        # Hot path: most batches were for one thing, which nothing has to be added up for.
        shares: list[Share] = (
            [("inference", "", batch.rows, batch.rows)] if plain else shares_of(batch.entries, batch.padded)
        )
        batch_log.ended(device, queue.spec.name, queue.version, start_ns=start_ns, end_ns=end_ns, shares=shares)

    def _take_back(
        self, queue: ModelQueue, account: WorkerAccount, batch: DispatchedBatch, result: BatchResult | ErgError
    ) -> None:
        queue.running -= 1
        queue.hold(account.worker.name, -batch.rows)
        if queue.gather_until_ns and queue.batcher.queue:
            # What was gathered for the next batch need not wait longer.
            self._changed(queue)
        if isinstance(result, ErgError):
            for entry in batch.entries:
                self._fail(queue, entry, result, "BACKEND")
        else:
            actual_ns = result.input_ns + result.infer_ns + result.output_ns
            if queue.ran_before(account.worker.name, batch) or not queue.latency.known(batch.key):
                queue.latency.observe(batch.key, batch.rows, actual_ns)
            account.correct(actual_ns - batch.predicted_ns)
            self._answer(queue, account.worker.name, batch, result)
        self._check_drained(queue)

    def _answer(self, queue: ModelQueue, device: str, batch: DispatchedBatch, result: BatchResult) -> None:
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
        if queue.timed:
            queue.observed_ns = now_ns
            in_time = [entry.deadline.at_ns >= now_ns for entry in batch.entries if entry.deadline is not None]
            met = sum(in_time)
            queue.caution.met(met)
            queue.caution.missed(len(in_time) - met)
            queue.meter.answered_in_time(met, len(in_time) - met)
        name, version, rows = queue.spec.name, queue.version, batch.rows
        for entry in batch.entries:
            phases = entry.phases
            phases.completed_ns = now_ns
            phases.compute_input_ns = input_ns
            phases.compute_infer_ns = infer_ns
            phases.compute_output_ns = output_ns
            phases.batch_rows = rows
            phases.device = device
            entry.state = _FINISHED
        queue.meter.succeeded([entry.phases for entry in batch.entries], rows)
        for entry, outputs in zip(batch.entries, answers, strict=True):
            entry.on_done(
                InferenceResponse(
                    model_name=name, model_version=version, id=entry.request.id, outputs=outputs, phases=entry.phases
                )
            )

    def _expire(self, queue: ModelQueue, now_ns: int) -> None:
        self._tell_late(queue, queue.batcher.expire(now_ns), now_ns)

    def _drop(self, queue: ModelQueue, entries: Sequence[QueuedRequest], now_ns: int) -> None:
        queue.batcher.drop(entries)
        self._tell_late(queue, entries, now_ns)

    def _tell_late(self, queue: ModelQueue, entries: Sequence[QueuedRequest], now_ns: int) -> None:
        """Answer requests that left the queue because they would be too late."""
        for entry in entries:
            self._dequeued(queue, entry)
            waited_ms = (now_ns - entry.phases.queued_ns) / 1e6
            error = DeadlineExceededError(
                f"the request's time ran out after {waited_ms:.1f} ms in the queue of model '{queue.spec.name}', "
                f"which holds {len(queue.batcher.queue)} more"
            )
            if entry.deadline is not None:
                queue.caution.missed(1)
            entry.state = _FINISHED
            queue.meter.expired(now_ns - entry.request.arrival_ns)
            entry.on_done(error)
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


def _refusal(error: ErgError) -> RefusalReason:
    """The metric's word for why a request was not taken."""
    if isinstance(error, ResourceExhaustedError):
        return "predicted_late" if error.trailers else "queue_full"
    if isinstance(error, InvalidArgumentError):
        return "priority"
    return "deadline" if isinstance(error, DeadlineExceededError) else "unloaded"
