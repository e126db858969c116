"""When a batch of a model with an objective has to go, and how large it should be. Pure: knows no queue and no device.

The rule is Symphony's deferred batch scheduling (Chen et al., arXiv 2308.07470): a batch is let go at the last moment
at which one more request would still fit before the earliest deadline, so that devices run few and large batches. Two
things end the wait before: the batch is as large as pays, or no request is expected before that moment. That moment is
earlier by as long as batches that could go have waited for a device lately.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from erg_server.scheduling.latency_model import LatencyModel

SLACK_MARGIN_NS: Final = 1_500_000
"""Kept free before a deadline: the event loop's timer resolution (1 ms) and the answer's way back to the caller."""
BATCH_SHARE: Final = 0.9
"""Of an objective, what one batch may take. Over n devices whose batches are staggered the next one is free within an
nth of a batch, so n / (n + 1) of the objective is left for it (Symphony's analysis): this is for nine."""
_WEIGHT: Final = 0.1
"""Of the newest gap between two arrivals, and the newest wait for a device, in their running averages."""
_DEVIATIONS: Final = 2
"""How many mean deviations longer than the mean a wait for a device may be (the estimate of TCP's timeouts, Jacobson
1988, which takes 4: with that many, batches were so early that bursts of mixed objectives lost a fifth of goodput)."""
_FIRST_GAP_NS: Final = 10_000_000_000
"""The gap before a second request came: none is expected."""


class SlackPolicy:
    """Decides by one model's latencies and arrivals. `observed` and the rest are called in the order of time."""

    def __init__(self, latency: LatencyModel) -> None:
        self._latency = latency
        self._arrival_ns = 0
        self._gap_ns = float(_FIRST_GAP_NS)
        self._wait_ns = 0.0
        self._deviation_ns = 0.0

    def arrived(self, now_ns: int) -> None:
        """A request joined the queue."""
        if self._arrival_ns:
            self._gap_ns += _WEIGHT * (now_ns - self._arrival_ns - self._gap_ns)
        self._arrival_ns = now_ns

    def waited(self, wait_ns: int) -> None:
        """A device took a batch so long after it could go."""
        error_ns = wait_ns - self._wait_ns
        self._wait_ns += _WEIGHT * error_ns
        self._deviation_ns += _WEIGHT * (abs(error_ns) - self._deviation_ns)

    def due_ns(self, deadline_ns: int, key: Hashable, rows: int, limit: int) -> int:
        """Until when a batch of `rows` rows, and at most `limit`, may wait for another one."""
        longest_ns = self._latency.predict_high_ns(key, rows + 1 if rows < limit else limit)
        wait_ns = self._wait_ns + _DEVIATIONS * self._deviation_ns
        return deadline_ns - int(longest_ns + wait_ns) - SLACK_MARGIN_NS

    def pays(self, due_ns: int, now_ns: int) -> bool:
        """Whether another request is expected while a batch that is due then waits."""
        return now_ns + self._gap_ns < due_ns

    def limit(self, key: Hashable, most: int) -> int:
        """The largest batch worth forming, at most `most`."""
        return self._latency.best_rows(key, most)


def rows_in_time(latency: LatencyModel, key: Hashable, deadline_ns: int, start_ns: int, most: int) -> int:
    """How many rows a batch that starts then may have to end before the deadline; 1 where not even that is in time."""
    if most <= 1 or not latency.known(key):
        return most
    return max(1, latency.rows_within(key, deadline_ns - start_ns - SLACK_MARGIN_NS, most))


def rows_to_drop(
    latency: LatencyModel, key: Hashable, deadlines_ns: Sequence[int], start_ns: int, limit: int, *, devices: int = 1
) -> int:
    """How many of the first requests to give up, so that the devices answer more of all of them in time.

    Where more comes than can be answered, the first request's deadline allows a small batch only, which wastes the
    device and makes the next ones late in turn. This is the early drop of Nexus (Shen et al., SOSP 2019): a request is
    given up where the larger batch behind it answers more than one request more in the time of the small one. Many
    devices take their batches from the same first requests: all of them gain by those that are given up, and it takes
    as many more to reach deadlines that are later.

    Args:
        latency: predicts durations.
        key: the shape they share.
        deadlines_ns: of the waiting requests of one row each, earliest first.
        start_ns: when the batch would start.
        limit: most rows of a batch.
        devices: how many take such batches.
    """
    first = rows_in_time(latency, key, deadlines_ns[0], start_ns, min(limit, len(deadlines_ns)))
    time_ns = latency.predict_ns(key, first)
    best, best_gain = 0, float(first * devices)
    for dropped in range(devices, min(len(deadlines_ns), limit * devices + 1), devices):
        most = min(limit, (len(deadlines_ns) - dropped + devices - 1) // devices)
        rows = rows_in_time(latency, key, deadlines_ns[dropped], start_ns, most)
        gain = devices * time_ns * rows / latency.predict_ns(key, rows) - dropped
        if gain > best_gain:
            best, best_gain = dropped, gain
        if rows == most:
            break
    return best
