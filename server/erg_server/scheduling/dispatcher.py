"""Decides when which model's batch goes to which worker. What it costs does not depend on how many of either there are.

It looks at a queue only when something happened to it: a request came or left, its time has come, or a worker that may
take its batch is free. What could go and finds no worker is parked with its fleet by urgency.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Final

from erg_server.clock import Clock
from erg_server.scheduling.fleet import OVERLOAD, STAGING_MARGIN_NS, Fleet, FleetIndex, WorkerAccount
from erg_server.scheduling.model_queue import ModelQueue
from erg_server.scheduling.placement import balance_rows, share_rows, spread_rows
from erg_server.scheduling.poll_outcome import Ready, WaitUntil
from erg_server.scheduling.ports import SchedulableWorker, Timer, Timers
from erg_server.scheduling.request_queue import AGEING_NS, QueuedRequest
from erg_server.scheduling.slack import rows_in_time, rows_to_drop

HANDOVER_NS: Final = 100_000
"""About what a batch costs beside its model: front and worker wake for it, which took 270 µs of CPU here for batches of
a few rows (docs/benchmarks.md). Batches that run shorter than that are worth gathering, not spreading."""
_EXACT_WORKERS: Final = 8
"""Among more workers than these a batch's rows are shared by count alone: asking each of them would take too long."""

Drop = Callable[[ModelQueue, Sequence[QueuedRequest], int], None]
Submit = Callable[[ModelQueue, Ready, int, WorkerAccount, int], None]
Expire = Callable[[ModelQueue, int], None]


class Dispatcher:
    """Owns the fleets, and when what is looked at next.

    `submit` hands a batch over, `expire` answers what is late, and `drop` what is given up for others.
    """

    def __init__(self, *, clock: Clock, timers: Timers, submit: Submit, expire: Expire, drop: Drop) -> None:
        self.fleets = FleetIndex()
        self._clock = clock
        self._timers = timers
        self._submit = submit
        self._expire = expire
        self._drop = drop
        self._queues: dict[int, ModelQueue] = {}
        # What something happened to since the last pass.
        self._changed: dict[int, ModelQueue] = {}
        self._touched: dict[Fleet, None] = {}
        # What is looked at again when its time comes; stale where the time is not the one that it has now.
        self._due: list[tuple[int, int, ModelQueue | Fleet]] = []
        self._due_bound = 64
        self._pushes = 0
        self._scheduled = False
        self._timer: Timer | None = None
        self._timer_ns = 0

    def add_worker(self, worker: SchedulableWorker) -> None:
        """Let a worker take batches from now on."""
        self.fleets.add(worker)
        self._regroup()

    def worker_available(self, worker: SchedulableWorker) -> None:
        """A worker came up, freed a slot or loaded a model."""
        account = self.fleets.account(worker)
        account.changed()
        if account.loads != worker.loads:
            account.loads = worker.loads
            self._regroup()
        for fleet in account.fleets:
            if (
                fleet.parked.first() is not None
                or fleet.fair.first() is not None
                or (account.idle and fleet.deferred.first() is not None)
            ):
                self._touched[fleet] = None
                self._wake()

    def open(self, queue: ModelQueue) -> None:
        """Dispatch a queue's batches from now on."""
        self._queues[queue.handle] = queue
        queue.fleet = self.fleets.fleet(queue.handle)
        queue.caution.devices = max(1, queue.fleet.size)
        queue.fleet.models += 1

    def close(self, queue: ModelQueue) -> None:
        """Forget a queue."""
        if self._queues.pop(queue.handle, None) is not None:
            queue.fleet.models -= 1
        self._changed.pop(queue.handle, None)
        queue.place = queue.due_ns = 0

    def arrived(self, queue: ModelQueue, entry: QueuedRequest) -> None:
        """A request joined the queue.

        Where a batch waits for a worker already, one that goes behind its first request brings nothing forward: it is
        found when a worker is there, for every queue is looked at again before a batch of it goes.
        """
        ready, due_ns, expires_ns = queue.ready, queue.due_ns, entry.expires_ns
        if (
            ready is not None
            and queue.place
            and queue.place != queue.deferred_place
            and queue.fleet.models > 1
            and entry.level == ready.level
            and entry.key == ready.key
            and entry.rank_ns >= ready.urgent_ns
            and (expires_ns is None or (due_ns and due_ns <= expires_ns))
        ):
            queue.polled_ns = -1
        else:
            self.changed(queue)

    def changed(self, queue: ModelQueue) -> None:
        """Requests joined or left the queue. Those of one pass of the event loop are dispatched together at its end."""
        queue.polled_ns = -1
        self._changed[queue.handle] = queue
        if not self._scheduled:
            self._scheduled = True
            self._timers.call_soon(self._dispatch)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._timers.call_soon(self._dispatch)

    def _regroup(self) -> None:
        """Find each queue's fleet again, since a worker has other models than before."""
        old = {queue.fleet for queue in self._queues.values()}
        for queue in self._queues.values():
            fleet = self.fleets.fleet(queue.handle)
            if fleet is not queue.fleet:
                queue.move(fleet)
                queue.place = 0
                if queue.batcher.queue:
                    self.changed(queue)
        for unused in old - {queue.fleet for queue in self._queues.values()}:
            self.fleets.forget(unused)

    def _dispatch(self) -> None:
        """Let every batch go that may, then set the timer for the next thing that time alone brings about."""
        self._scheduled = False
        now_ns = self._clock.now_ns()
        changed, self._changed = self._changed, {}
        due = self._due
        while due and due[0][0] <= now_ns:
            at_ns, _, what = heapq.heappop(due)
            if what.due_ns == at_ns:
                what.due_ns = 0
                if isinstance(what, Fleet):
                    self._touched[what] = None
                else:
                    changed[what.handle] = what
        for queue in changed.values():
            self._look(queue, now_ns)
        while self._touched:
            self._match(self._touched.popitem()[0], now_ns)
        self._set_timer(now_ns)

    def _look(self, queue: ModelQueue, now_ns: int) -> None:
        """Park the queue if a batch of it may go, else note when to look again."""
        batcher, fleet = queue.batcher, queue.fleet
        queue.polled_ns = now_ns
        at_ns = batcher.queue.next_expiry_ns()
        if at_ns is not None and at_ns <= now_ns:
            self._expire(queue, now_ns)
            at_ns = batcher.queue.next_expiry_ns()
        idle = queue.objective_ns > 0 and fleet.idle > 0
        early_ns = fleet.early_ns(queue.work_ns) if idle else 0
        outcome = batcher.poll(now_ns, spare=idle and fleet.spare(now_ns), early_ns=early_ns)
        if isinstance(outcome, Ready):
            gather_ns = queue.gather_until_ns
            if gather_ns > now_ns and outcome.waiting_rows < min(outcome.limit_rows, queue.running_rows):
                queue.place = 0
                at_ns = gather_ns if at_ns is None or gather_ns < at_ns else at_ns
            else:
                queue.ready = outcome
                queue.ready_ns = queue.ready_ns or now_ns
                if queue.greedy or outcome.deadline_ns is None:
                    fleet.fair.add(queue, queue.share.start(fleet.virtual_ns))
                else:
                    fleet.parked.add(queue, outcome.urgent_ns)
                if fleet.idle or fleet.models == 1 or now_ns >= fleet.stage_ns:
                    self._touched[fleet] = None
        elif isinstance(outcome, WaitUntil):
            queue.ready_ns = 0
            due_ns = outcome.at_ns
            at_ns = due_ns if at_ns is None or due_ns < at_ns else at_ns
            if not queue.objective_ns:
                queue.place = 0
            elif not queue.place or queue.place != queue.deferred_place:
                fleet.deferred.add(queue, due_ns)
                queue.deferred_place = queue.place
        else:
            queue.ready_ns = queue.place = 0
        if at_ns != queue.due_ns:
            self._look_again(queue, at_ns)

    def _match(self, fleet: Fleet, now_ns: int) -> None:
        """Give the most urgent batches to the workers that are free soonest, until there is none of either."""
        while (account := fleet.soonest()) is not None:
            queue = self._next(fleet, account, now_ns)
            if queue is None:
                return
            if queue.polled_ns != now_ns:
                self._look(queue, now_ns)
                continue
            ready = queue.ready
            assert ready is not None
            # Where models share a worker, none has a batch behind another's before it must.
            alone = queue.fleet.models == 1
            if not account.idle and not (alone and ready.waiting_rows >= ready.limit_rows * queue.fleet.size):
                stage_ns = account.busy_until_ns - STAGING_MARGIN_NS
                if stage_ns > now_ns:
                    fleet.stage_ns = stage_ns
                    self._look_again(fleet, stage_ns)
                    return
            queue.ready = None
            if queue.objective_ns and self._give_up(queue, ready, account, now_ns):
                self._look(queue, now_ns)
                continue
            queue.batcher.waited(now_ns - queue.ready_ns)
            queue.ready_ns = 0
            self._submit(queue, ready, self._rows(queue, ready, account, now_ns), account, now_ns)
            self._look(queue, now_ns)

    def _give_up(self, queue: ModelQueue, ready: Ready, account: WorkerAccount, now_ns: int) -> bool:
        """Drop what would be late on the worker that is free soonest, and what keeps others from being in time."""
        start_ns = account.start_ns(now_ns)
        due_ns = queue.batcher.queue.next_expiry_ns()
        if due_ns is not None and due_ns < start_ns:
            self._expire(queue, start_ns)
            return True
        if ready.waiting_rows <= 1 or ready.deadline_ns is None or queue.fleet.load(now_ns) < OVERLOAD:
            return False
        most = min(ready.waiting_rows, ready.limit_rows)
        if rows_in_time(queue.latency, ready.key, ready.deadline_ns, start_ns, most) >= most:
            return False
        # As many of them as its part of what waits takes.
        devices = max(1, queue.fleet.size * queue.work_ns // max(1, queue.fleet.waiting_ns))
        first = queue.batcher.first(ready, 2 * ready.limit_rows * devices)
        deadlines_ns = [entry.deadline.at_ns for entry in first if entry.deadline is not None]
        count = rows_to_drop(queue.latency, ready.key, deadlines_ns, start_ns, ready.limit_rows, devices=devices)
        if not count:
            return False
        self._drop(queue, first[:count], now_ns)
        return True

    def _next(self, fleet: Fleet, account: WorkerAccount, now_ns: int) -> ModelQueue | None:
        """The queue whose batch a worker should take: the most urgent one of all that it may run.

        Of those that take turns it is the one whose turn it is that counts, by how long its requests wait.
        """
        best: ModelQueue | None = None
        best_ns = 0
        fairest: ModelQueue | None = None
        least_ns = 0
        for each in account.fleets:
            first = each.parked.first()
            if first is not None and (best is None or first[0] < best_ns):
                best_ns, best = first[0], first[2]
            first = each.fair.first()
            if first is not None and (fairest is None or first[0] - each.virtual_ns < least_ns):
                least_ns, fairest = first[0] - each.virtual_ns, first[2]
        if fairest is not None:
            ready = fairest.ready
            assert ready is not None
            due_ns = ready.urgent_ns + (AGEING_NS if fairest.greedy else 0)
            return fairest if best is None or due_ns < best_ns else best
        if best is not None:
            return best
        if account.idle:
            waits = fleet.deferred.first()
            if waits is not None and waits[2].polled_ns != now_ns:
                due_ns, _, queue = waits
                return queue if due_ns - fleet.early_ns(queue.work_ns) <= now_ns or fleet.spare(now_ns) else None
        return None

    def _rows(self, queue: ModelQueue, ready: Ready, account: WorkerAccount, now_ns: int) -> int:
        """How many rows a batch takes at most."""
        deadline_ns, limit = ready.deadline_ns, ready.limit_rows
        if deadline_ns is None:
            return self._share(queue, ready, account, now_ns)
        most = limit if queue.batcher.queue.rows > ready.waiting_rows else min(ready.waiting_rows, limit)
        fitting = rows_in_time(queue.latency, ready.key, deadline_ns, account.start_ns(now_ns), most)
        if queue.objective_ns and not queue.fleet.spare(now_ns):
            if fitting < most == limit and queue.fleet.load(now_ns) >= OVERLOAD:
                # In time, but only as a batch smaller than pays: so much was admitted that capacity is lost.
                queue.caution.missed(1)
            return fitting
        return min(fitting, self._share(queue, ready, account, now_ns))

    def _share(self, queue: ModelQueue, ready: Ready, account: WorkerAccount, now_ns: int) -> int:
        """How many rows to take so that the other workers get theirs."""
        fleet, limit, waiting = queue.fleet, ready.limit_rows, ready.waiting_rows
        if fleet.size == 1 or limit == 1 or waiting == 1:
            return limit
        if queue.latency.predict_ns(ready.key, min(waiting, limit)) < HANDOVER_NS:
            return limit
        if fleet.size > _EXACT_WORKERS:
            held_rows = queue.running_rows - queue.held_rows.get(account.worker.name, 0)
            return spread_rows(waiting, limit, idle=fleet.idle, workers=fleet.size, others_hold_rows=held_rows)
        start_ns = account.start_ns(now_ns)
        others = list(fleet.others(account))
        soonest = share_rows(
            waiting,
            limit,
            [other.free_in_ns(start_ns) for other in others],
            lambda rows: queue.latency.predict_ns(ready.key, rows),
        )
        held = [queue.held_rows.get(other.worker.name, 0) for other in others]
        return max(soonest, balance_rows(waiting, limit, held))

    def _look_again(self, what: ModelQueue | Fleet, at_ns: int | None) -> None:
        what.due_ns = at_ns or 0
        if at_ns is None:
            return
        due = self._due
        if len(due) >= self._due_bound:
            due[:] = [item for item in due if item[0] == item[2].due_ns]
            heapq.heapify(due)
            self._due_bound = 64 + 2 * len(due)
        self._pushes += 1
        heapq.heappush(due, (at_ns, self._pushes, what))

    def _set_timer(self, now_ns: int) -> None:
        due = self._due
        while due and due[0][0] != due[0][2].due_ns:
            heapq.heappop(due)
        at_ns = due[0][0] if due else 0
        if self._timer is not None:
            if at_ns == self._timer_ns:
                return
            self._timer.cancel()
            self._timer = None
        if at_ns:
            self._timer_ns = at_ns
            self._timer = self._timers.call_later(max(0, at_ns - now_ns) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._dispatch()
