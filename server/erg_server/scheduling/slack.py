"""When a batch of a model with an objective has to go, and how large it should be. Pure: knows no queue and no device.

The rule is Symphony's deferred batch scheduling (Chen et al., arXiv 2308.07470): a batch is let go at the last moment
at which one more request would still fit before the earliest deadline, so that devices run few and large batches. Two
things end the wait before: the batch is as large as pays, or no request is expected before that moment.
"""

from __future__ import annotations

from collections.abc import Hashable

from erg_server.scheduling.latency_model import LatencyModel

SLACK_MARGIN_NS = 1_500_000
"""Kept free before a deadline: the event loop's timer resolution (1 ms) and the answer's way back to the caller."""
_WEIGHT = 0.1
"""Of the newest gap between two arrivals in their running average."""
_FIRST_GAP_NS = 10_000_000_000
"""The gap before a second request came: none is expected."""


class SlackPolicy:
    """Decides by one model's latencies and arrivals. `observed` and the rest are called in the order of time."""

    def __init__(self, latency: LatencyModel) -> None:
        self._latency = latency
        self._arrival_ns = 0
        self._gap_ns = float(_FIRST_GAP_NS)

    def arrived(self, now_ns: int) -> None:
        """A request joined the queue."""
        if self._arrival_ns:
            self._gap_ns += _WEIGHT * (now_ns - self._arrival_ns - self._gap_ns)
        self._arrival_ns = now_ns

    def due_ns(self, deadline_ns: int, key: Hashable, rows: int, limit: int) -> int:
        """Until when a batch of `rows` rows, and at most `limit`, may wait for another one."""
        longest_ns = self._latency.predict_high_ns(key, min(rows + 1, limit))
        return deadline_ns - round(longest_ns) - SLACK_MARGIN_NS

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
