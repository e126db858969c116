"""A histogram with fixed buckets, cheap enough for every request."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

LATENCY_BUCKETS_NS: Final = tuple(
    int(seconds * 1e9)
    for seconds in (
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    )
)  # fmt: skip
"""From 100 µs, below which a network call does not come, to 30 s, steps of 2 to 2.5."""
ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARE_BUCKETS_PERCENT: Final = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90)


class Histogram:
    """Counts by upper bound (inclusive), and the sum. Integers only, so that sums are exact."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def observe(self, value: int) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[int]) -> None:
        """Count several values."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def cumulative(self, scale: float = 1.0) -> list[tuple[str, float]]:
        """Prometheus buckets: (upper bound by scale as text, values up to it), ending with +Inf."""
        running = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip(self.bounds, self.counts, strict=False):
            running += count
            buckets.append((f"{bound * scale:.10g}", float(running)))
        buckets.append(("+Inf", float(running + self.counts[-1])))
        return buckets
