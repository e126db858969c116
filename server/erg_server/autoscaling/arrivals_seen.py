"""What arrived at a version, from what the scheduler counts anyway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from erg_server.scheduling.model_queue import ModelQueue
from erg_server.telemetry.meter import RefusalReason

_NOT_LOAD: Final[tuple[RefusalReason, ...]] = ("deadline", "priority", "unloaded")
"""Refusals that no number of servers would have spared the caller."""
_TOO_MANY: Final[tuple[RefusalReason, ...]] = ("predicted_late", "queue_full")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalsSeen:
    """Rows that a version answered, runs or has waiting, and requests that it refused, dropped or failed.

    Of requests with a deadline, those `in_time` and those that were `late`, be it that they were refused or dropped.
    """

    rows: int
    lost_requests: int
    in_time: int
    late: int

    @classmethod
    def of(cls, queue: ModelQueue) -> ArrivalsSeen:
        """Since the version's meter began."""
        meter = queue.meter
        lost = sum(meter.failures.values()) - sum(meter.refusals[why] for why in _NOT_LOAD)
        return cls(
            rows=meter.rows + queue.running_rows + queue.batcher.queue.rows,
            lost_requests=lost,
            in_time=meter.met_deadlines,
            late=meter.missed_deadlines + meter.dropped + sum(meter.refusals[why] for why in _TOO_MANY),
        )

    def rows_since(self, before: ArrivalsSeen, rows_per_request: float) -> float:
        """Rows that arrived after `before`, whatever became of them: overload would hide itself without the refused.

        Lost requests are taken to be as large as others.
        """
        return self.rows - before.rows + (self.lost_requests - before.lost_requests) * rows_per_request
