"""One loaded version's queue and what the scheduler keeps about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

from erg_server.errors import ErgError
from erg_server.repository.spec import ModelSpec
from erg_server.request import InferenceResponse
from erg_server.scheduling.admission import Caution
from erg_server.scheduling.batch import BatchLayout
from erg_server.scheduling.batcher import DynamicBatcher
from erg_server.scheduling.fair_share import Share
from erg_server.scheduling.fleet import WORK_CLASSES, Fleet, work_class
from erg_server.scheduling.latency_model import LatencyModel
from erg_server.scheduling.poll_outcome import Ready
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.telemetry.meter import ModelMeter

_MAX_RAN: Final = 4096
"""Shapes come from callers, so a full table starts again, at the cost of a few batches that teach nothing."""


@dataclass(slots=True, kw_only=True, eq=False)
class ModelQueue:
    """One loaded version's queue. `handle` is its name between front and workers."""

    handle: int
    spec: ModelSpec
    version: str
    meter: ModelMeter
    layout: BatchLayout
    batcher: DynamicBatcher
    latency: LatencyModel
    keeps_order: bool = field(init=False)
    # Within what requests are to be answered, 0 for no objective; and the urgency that their waiting work counts at.
    objective_ns: int = field(init=False)
    work_class: int = field(init=False)
    # Device time that the waiting requests with a deadline are predicted to take, of all workers.
    work_ns: int = 0
    share: Share = field(init=False)
    # Whether it has more than its share, so that its work counts as the least urgent.
    greedy: bool = False
    caution: Caution = field(default_factory=Caution)
    # Whether callers are promised the objective: not before the version is warm.
    promises: bool = True
    # Whether a request with a deadline ever came.
    timed: bool = False
    # Whether requests differ in what they ran for: one had a tenant, was a warm-up's, or was given up meanwhile.
    varied: bool = False
    # Batches that a worker ran once, by its name, their shape and rows: the first of each is often a compilation.
    ran: set[tuple[str, Hashable, int]] = field(default_factory=set)
    # When a batch last ended, or a request went in spite of its prediction.
    observed_ns: int = 0
    # The dispatcher's: which workers, the place in their order, when to look again, and what was found last and when.
    fleet: Fleet = field(init=False)
    place: int = 0
    deferred_place: int = 0
    due_ns: int = 0
    ready: Ready | None = None
    polled_ns: int = -1
    # Batches that workers hold.
    running: int = 0
    # Until when waiting requests are gathered for the next batch, because one that is short is under way.
    gather_until_ns: int = 0
    # Since when a batch may go and no worker took it, 0 if none may.
    ready_ns: int = 0
    # Rows that each worker, by name, runs or has staged, and all of them.
    held_rows: dict[str, int] = field(default_factory=dict)
    running_rows: int = 0
    closed: bool = False
    drain_waiters: list[asyncio.Future[None]] = field(default_factory=list)
    # Answers of a preserve_ordering model that wait for older ones, by arrival number.
    next_number: int = 0
    next_answer: int = 0
    held: dict[int, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look once at what every request would ask."""
        self.keeps_order = self.spec.batching is not None and self.spec.batching.preserve_ordering
        self.objective_ns = self.spec.objective_ns
        self.work_class = self._own_class()
        self.share = Share(self.spec.weight)

    def _own_class(self) -> int:
        return work_class(self.objective_ns) if self.objective_ns and not self.greedy else WORK_CLASSES - 1

    def add_work(self, work_ns: int) -> None:
        """A request waits that takes so much device time."""
        if not self.work_ns:
            self.fleet.weights += self.spec.weight
        self.work_ns += work_ns
        self.fleet.add_work(self.work_class, work_ns)

    def remove_work(self, work_ns: int) -> None:
        """It waits no more."""
        if work_ns:
            self.work_ns -= work_ns
            self.fleet.remove_work(self.work_class, work_ns)
            if not self.work_ns:
                self.fleet.weights -= self.spec.weight

    def move(self, fleet: Fleet) -> None:
        """Other workers have the model from now on."""
        work_ns = self.work_ns
        self.remove_work(work_ns)
        self.fleet.models -= 1
        self.fleet = fleet
        self.caution.devices = max(1, fleet.size)
        fleet.models += 1
        if work_ns:
            self.add_work(work_ns)

    def set_greedy(self, greedy: bool) -> None:
        """Count its waiting work at another urgency."""
        work_ns = self.work_ns
        self.fleet.remove_work(self.work_class, work_ns)
        self.greedy = greedy
        self.work_class = self._own_class()
        self.fleet.add_work(self.work_class, work_ns)

    def hold(self, worker: str, rows: int) -> None:
        """A worker was given `rows` more rows, or with a negative number is done with them."""
        self.held_rows[worker] = self.held_rows.get(worker, 0) + rows
        self.running_rows += rows

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.running and not self.batcher.queue

    def ran_before(self, worker: str, batch: DispatchedBatch) -> bool:
        """Whether the worker ran a batch of this shape and size before; from now on it did."""
        ran = (worker, batch.key, batch.rows)
        if ran in self.ran:
            return True
        if len(self.ran) >= _MAX_RAN:
            self.ran.clear()
        self.ran.add(ran)
        return False

    def keep_order(self, entry: QueuedRequest) -> None:
        """Make `entry` answer after every request that was queued before it (`preserve_ordering`)."""
        number = self.next_number
        self.next_number += 1
        deliver = entry.on_done

        def in_order(answer: InferenceResponse | ErgError) -> None:
            self.held[number] = lambda: deliver(answer)
            while (ready := self.held.pop(self.next_answer, None)) is not None:
                self.next_answer += 1
                ready()

        entry.on_done = in_order


class DispatchedBatch:
    """A batch on its way through a worker, which nothing changes. `padded` and `real` count its inputs' elements."""

    __slots__ = ("entries", "key", "padded", "predicted_ns", "real", "reason", "rows")

    def __init__(
        self,
        entries: list[QueuedRequest],
        *,
        rows: int,
        key: Hashable,
        reason: str,
        predicted_ns: int,
        padded: int,
        real: int,
    ) -> None:
        self.entries = entries
        self.rows = rows
        self.key = key
        self.reason = reason
        self.predicted_ns = predicted_ns
        self.padded = padded
        self.real = real
