"""How long a batch takes, learnt from the batches that ran: an average by shape and rows, a line between them."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

_MAX_KEYS: Final = 256
"""Shapes come from callers, so the table forgets the least recently used ones."""
_WEIGHT: Final = 0.2
"""Of the newest batch in the running average: five batches to follow a change, and one outlier moves it a fifth."""
UNMEASURED_ROW_NS: Final = 1_000_000
"""A row's assumed time before anything ran. Only ratios matter to placement, so any value proportional to rows does."""


class LatencyModel:
    """Predicts a batch's device time in nanoseconds from its shape key and its rows."""

    def __init__(self) -> None:
        self._curves: OrderedDict[Hashable, _Curve] = OrderedDict()

    def observe(self, key: Hashable, rows: int, duration_ns: int) -> None:
        """Learn from one batch of `rows` rows that took `duration_ns`."""
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) >= _MAX_KEYS:
                self._curves.popitem(last=False)
            curve = self._curves[key] = _Curve()
        else:
            self._curves.move_to_end(key)
        curve.observe(rows, duration_ns)

    def predict_ns(self, key: Hashable, rows: int) -> float:
        """The expected duration of a batch; proportional to rows where nothing like it ran yet."""
        curve = self._curves.get(key)
        return float(rows * UNMEASURED_ROW_NS) if curve is None else curve.predict_ns(rows)

    def known(self, key: Hashable) -> bool:
        """Whether any batch of this shape ran."""
        return key in self._curves


class _Curve:
    """Average duration at each measured row count, and straight lines between and beyond them."""

    __slots__ = ("_averages", "_rows")

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._averages: dict[int, float] = {}

    def observe(self, rows: int, duration_ns: int) -> None:
        known = self._averages.get(rows)
        if known is None:
            insort(self._rows, rows)
            self._averages[rows] = float(duration_ns)
        else:
            self._averages[rows] = known + _WEIGHT * (duration_ns - known)

    def predict_ns(self, rows: int) -> float:
        exact = self._averages.get(rows)
        if exact is not None:
            return exact
        at = bisect_left(self._rows, rows)
        if at == 0:
            low, high, below = 0, self._rows[0], 0.0
        elif at == len(self._rows):
            # Beyond the largest measured batch time grows in proportion, which is right for a busy device.
            last = self._rows[-1]
            return self._averages[last] * rows / last
        else:
            low, high = self._rows[at - 1], self._rows[at]
            below = self._averages[low]
        above = self._averages[high]
        return below + (above - below) * (rows - low) / (high - low)
