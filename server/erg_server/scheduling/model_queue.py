"""One loaded version's queue and what the scheduler keeps about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from erg_server.errors import ErgError
from erg_server.repository.spec import ModelSpec
from erg_server.request import InferenceResponse
from erg_server.scheduling.batch import BatchLayout
from erg_server.scheduling.batcher import DynamicBatcher
from erg_server.scheduling.latency_model import LatencyModel
from erg_server.scheduling.request_queue import QueuedRequest
from erg_server.telemetry.meter import ModelMeter


@dataclass(slots=True, kw_only=True, eq=False)
class ModelQueue:
    """One loaded version's queue. `handle` is its name between front and workers."""

    handle: int
    spec: ModelSpec
    version: str
    meter: ModelMeter
    layout: BatchLayout
    batcher: DynamicBatcher
    keeps_order: bool = field(init=False)
    latency: LatencyModel = field(default_factory=LatencyModel)
    # Batches that workers hold.
    running: int = 0
    # Until when waiting requests are gathered for the next batch, because one that is short is under way.
    gather_until_ns: int = 0
    # Rows that each worker, by name, runs or has staged.
    held_rows: dict[str, int] = field(default_factory=dict)
    closed: bool = False
    drain_waiters: list[asyncio.Future[None]] = field(default_factory=list)
    # Answers of a preserve_ordering model that wait for older ones, by arrival number.
    next_number: int = 0
    next_answer: int = 0
    held: dict[int, Callable[[], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look once at what every request would ask."""
        self.keeps_order = self.spec.batching is not None and self.spec.batching.preserve_ordering

    @property
    def running_rows(self) -> int:
        """Rows that workers run or have staged."""
        return sum(self.held_rows.values())

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return not self.running and not self.batcher.queue

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
