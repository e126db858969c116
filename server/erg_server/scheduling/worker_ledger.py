"""What each worker is predicted to be busy with: the account that placement decides by. Times are whole nanoseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from erg_server.scheduling.ports import SchedulableWorker

STAGING_MARGIN_NS: Final = 1_500_000
"""How long before a busy worker is predicted to finish it gets its next batch: the event loop's timer resolution (1 ms)
and the time the front takes to form it. Later, the device waits; earlier, the batch misses requests about to come (3 ms
cost 6 % of the batch's size with 8 MiniLM callers)."""


class WorkerLedger:
    """Owns the list of workers and until when each is busy."""

    def __init__(self) -> None:
        self._workers: list[SchedulableWorker] = []
        self._busy_until_ns: dict[str, int] = {}

    def add(self, worker: SchedulableWorker) -> None:
        """Count a worker in."""
        self._workers.append(worker)
        self._busy_until_ns[worker.name] = 0

    def changed(self, worker: SchedulableWorker) -> None:
        """A worker came up or freed a slot: one that holds nothing is idle, whatever was predicted of it."""
        if worker.free_slots == worker.slots:
            self._busy_until_ns[worker.name] = 0

    def slot_bytes(self, default: int) -> int:
        """The smallest slot of all workers; `default` without any."""
        return min((worker.slot_bytes for worker in self._workers), default=default)

    def able(self, handle: int) -> list[SchedulableWorker]:
        """The workers that hold this model."""
        return [worker for worker in self._workers if worker.has_model(handle)]

    def soonest(self, able: Sequence[SchedulableWorker]) -> SchedulableWorker | None:
        """Of the workers with a free slot, the one that is done first; None if there is none."""
        free = [worker for worker in able if worker.free_slots]
        return min(free, key=self._until_ns, default=None)

    def stage_ns(self, worker: SchedulableWorker) -> int:
        """From when a worker may get its next batch; 0 for one that holds none."""
        if worker.free_slots == worker.slots:
            return 0
        return self._busy_until_ns[worker.name] - STAGING_MARGIN_NS

    def free_in_ns(self, worker: SchedulableWorker, from_ns: int) -> int:
        """How long after `from_ns` a worker is done."""
        return max(0, self._until_ns(worker) - from_ns) if worker.free_slots < worker.slots else 0

    def start_ns(self, worker: SchedulableWorker, now_ns: int) -> int:
        """When a batch given now would start."""
        return max(now_ns, self._busy_until_ns[worker.name])

    def charge(self, worker: SchedulableWorker, now_ns: int, predicted_ns: int) -> None:
        """A worker was given a batch."""
        self._busy_until_ns[worker.name] = self.start_ns(worker, now_ns) + predicted_ns

    def correct(self, worker: SchedulableWorker, late_ns: int) -> None:
        """A batch took `late_ns` longer than predicted, which shifts the one staged behind it."""
        self._busy_until_ns[worker.name] += late_ns

    def _until_ns(self, worker: SchedulableWorker) -> int:
        return self._busy_until_ns[worker.name] if worker.free_slots < worker.slots else 0
