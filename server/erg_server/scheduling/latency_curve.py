"""How long batches of one shape take: a mean at each row count, lines between, and how far above it slow ones lie."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

QUANTILE: Final = 0.99
"""Which share of batches takes no longer than the high prediction."""
_WEIGHT: Final = 0.2
"""Of the newest batch in the running average: five batches to follow a change, and one outlier moves it a fifth."""
_GAIN, _FIRST_GAIN = 0.05, 0.25
"""How far one batch moves the quantile: 5 % up, 0.05 % down; further while there are few."""
FIRST_SPREAD: Final = 1.1
"""Quantile over mean before a size was seen twice."""
_JUDGED_BATCHES: Final = 3
"""Batches of a size before its cost says anything, and whose least is its time at first: one is often a compilation or
a cold cache, and a size that is found dear is not formed again."""
_WORSE: Final = 1.05
"""A row's cost beyond the best one's by this is worse. Of sizes within it the smallest is taken: a longer batch would
save next to nothing, and every other one would wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSnapshot:
    """What a curve has learnt, to be kept over a restart: mean nanoseconds by rows, and quantile over mean."""

    means_ns: Mapping[int, float]
    spread: float = FIRST_SPREAD


class LatencyCurve:
    """Learns one shape's durations. Predictions are never negative and need one measured size at least.

    The quantile is that of duration over mean, each size's own: what disturbs a batch, such as a core that is wanted by
    others, takes as long from a short one as from a long one, and so is a larger part of it. It is estimated by
    multiplicative updates (DUMIQE: Yazidi and Hammer, "Multiplicative Update Methods for Incremental
    Quantile Estimation", IEEE Transactions on Cybernetics 49(3), 2019): a step up by `gain * q` where a batch took
    longer than estimated and down by `gain * (1 - q)` where it did not, which follows changes and keeps no samples.
    """

    __slots__ = (
        "_best_rows",
        "_budget_ns",
        "_counts",
        "_first_spread",
        "_high_ns",
        "_judged",
        "_least_ns",
        "_means",
        "_rows",
        "_spreads",
    )

    def __init__(self, budget_ns: float = math.inf) -> None:
        self._budget_ns = budget_ns
        self._rows: list[int] = []
        self._means: dict[int, float] = {}
        # Of this size and all larger ones: fewer rows never take longer, so what a larger batch took is a bound.
        self._least_ns: dict[int, float] = {}
        self._counts: dict[int, int] = {}
        self._first_spread = FIRST_SPREAD
        # Of the sizes that were seen twice, and how often each was.
        self._spreads: dict[int, float] = {}
        self._judged: dict[int, int] = {}
        # What was derived since the last batch: high predictions, and the cheapest size or 0.
        self._high_ns: dict[int, float] = {}
        self._best_rows = 0

    def observe(self, rows: int, duration_ns: float) -> None:
        """Learn from one batch of `rows` rows."""
        known = self._means.get(rows)
        self._best_rows = 0
        self._high_ns.clear()
        if known is None:
            insort(self._rows, rows)
            self._means[rows] = float(duration_ns)
            self._counts[rows] = 1
            self._restate(rows)
            return
        first = self._counts[rows] < _JUDGED_BATCHES
        mean = min(known, float(duration_ns)) if first else known + _WEIGHT * (duration_ns - known)
        if known > 0:
            self._judge(rows, duration_ns / known)
        self._means[rows] = mean
        self._counts[rows] += 1
        self._restate(rows)

    def restore(self, snapshot: CurveSnapshot) -> None:
        """Take over what an earlier run or a measurement found, for every size that is not known yet."""
        for rows, mean_ns in snapshot.means_ns.items():
            if rows not in self._means:
                insort(self._rows, rows)
                self._means[rows] = mean_ns
                self._counts[rows] = _JUDGED_BATCHES
                self._restate(rows)
        self._first_spread = snapshot.spread
        self._best_rows = 0
        self._high_ns.clear()

    def snapshot(self) -> CurveSnapshot:
        """What was learnt so far."""
        usual = max(self._judged, key=self._judged.__getitem__, default=0)
        return CurveSnapshot(means_ns=dict(self._means), spread=self._spreads.get(usual, self._first_spread))

    @property
    def rows_seen(self) -> int:
        """Rows of all batches that were learnt from."""
        return sum(rows * count for rows, count in self._counts.items())

    def predict_ns(self, rows: int) -> float:
        """The expected duration."""
        exact = self._least_ns.get(rows)
        if exact is not None:
            return exact
        at = bisect_left(self._rows, rows)
        if at == 0:
            low, high, below = 0, self._rows[0], 0.0
        elif at == len(self._rows):
            # Beyond the largest measured batch time grows in proportion, which is right for a busy device.
            last = self._rows[-1]
            return self._least_ns[last] * rows / last
        else:
            low, high = self._rows[at - 1], self._rows[at]
            below = self._least_ns[low]
        above = self._least_ns[high]
        return below + (above - below) * (rows - low) / (high - low)

    def predict_high_ns(self, rows: int) -> float:
        """What 99 % of batches take no longer than."""
        high_ns = self._high_ns.get(rows)
        if high_ns is None:
            high_ns = self._high_ns[rows] = self._find_high_ns(rows)
        return high_ns

    def _find_high_ns(self, rows: int) -> float:
        """By its own spread, at most what a larger size has; else what a smaller one adds, or a larger one's spread."""
        mean_ns = self.predict_ns(rows)
        spread = self._spreads.get(rows)
        if spread is not None:
            larger_ns = [self._least_ns[size] * other for size, other in self._spreads.items() if size > rows]
            return min(mean_ns * spread, *larger_ns) if larger_ns else mean_ns * spread
        smaller = max((size for size in self._spreads if size < rows), default=0)
        if smaller:
            added_ns = self._means[smaller] * (self._spreads[smaller] - 1)
            return max(mean_ns * self._first_spread, mean_ns + added_ns)
        larger = min(self._spreads, default=0)
        return mean_ns * (self._spreads[larger] if larger else self._first_spread)

    def best_rows(self, most: int) -> int:
        """The largest batch worth forming, at most `most`: rows of a larger one cost hardly less, or more.

        It ends within the budget, if one of a single row does. Sizes that were not tried are tried, each at most twice
        the largest that is known to pay.
        """
        best = self._best_rows or self._find_best()
        return min(best, most)

    def _find_best(self) -> int:
        best = self._cheapest()
        while best > 1 and self.predict_high_ns(best) > self._budget_ns:
            best -= 1
        self._best_rows = best
        return best

    def _cheapest(self) -> int:
        costs = {rows: self._least_ns[rows] / rows for rows in self._rows if self._counts[rows] >= _JUDGED_BATCHES}
        if not costs:
            return 2 * self._rows[-1]
        cheapest = min(costs.values())
        efficient = min(rows for rows, cost in costs.items() if cost <= _WORSE * cheapest)
        return efficient if efficient < max(costs) else 2 * efficient

    def _restate(self, rows: int) -> None:
        """A size's mean changed, and with it what is known of smaller ones."""
        at = bisect_left(self._rows, rows)
        bound_ns = self._least_ns[self._rows[at + 1]] if at + 1 < len(self._rows) else math.inf
        for size in reversed(self._rows[: at + 1]):
            bound_ns = min(self._means[size], bound_ns)
            if size != rows and self._least_ns[size] == bound_ns:
                return
            self._least_ns[size] = bound_ns

    def _judge(self, rows: int, ratio: float) -> None:
        spread = self._spreads.get(rows, self._first_spread)
        judged = self._judged[rows] = self._judged.get(rows, 0) + 1
        gain = max(_GAIN, min(_FIRST_GAIN, 1 / judged))
        if ratio > spread:
            spread *= 1 + gain * QUANTILE
        else:
            spread = max(1.0, spread * (1 - gain * (1 - QUANTILE)))
        self._spreads[rows] = spread
