"""How long a batch takes on a model's devices, learnt from the batches that ran. Predicts and reads no file."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Final

from erg_server.scheduling.latency_curve import FIRST_SPREAD, CurveSnapshot, LatencyCurve

Curves = Mapping[Hashable, CurveSnapshot]
"""What is known of a model, by shape."""

_MAX_KEYS: Final = 256
"""Shapes come from callers, so the table forgets the least recently used ones."""
UNMEASURED_ROW_NS: Final = 1_000_000
"""A row's assumed time before anything ran. Only ratios matter to placement, so any value proportional to rows does."""


class LatencyModel:
    """Predicts a batch's device time in nanoseconds from its shape key and its rows.

    One for each version and kind of device: the instances of a model are all of one kind. No batch that takes longer
    than `budget_ns` is worth forming.
    """

    def __init__(self, budget_ns: float = math.inf) -> None:
        self._budget_ns = budget_ns
        self._curves: OrderedDict[Hashable, LatencyCurve] = OrderedDict()

    def observe(self, key: Hashable, rows: int, duration_ns: int) -> None:
        """Learn from one batch of `rows` rows that took `duration_ns`."""
        self._made_curve(key).observe(rows, duration_ns)

    def predict_ns(self, key: Hashable, rows: int) -> float:
        """The expected duration of a batch; proportional to rows where nothing like it ran yet."""
        curve = self._curves.get(key)
        return float(rows * UNMEASURED_ROW_NS) if curve is None else curve.predict_ns(rows)

    def predict_high_ns(self, key: Hashable, rows: int) -> float:
        """What 99 % of such batches take no longer than."""
        curve = self._curves.get(key)
        if curve is None:
            return rows * UNMEASURED_ROW_NS * FIRST_SPREAD
        return curve.predict_high_ns(rows)

    def rows_within(self, key: Hashable, budget_ns: float, most: int) -> int:
        """The largest batch of at most `most` rows that 99 times in 100 ends within `budget_ns`; 0 for none."""
        if self.predict_high_ns(key, most) <= budget_ns:
            return most
        low, high = 0, most - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.predict_high_ns(key, middle) <= budget_ns:
                low = middle
            else:
                high = middle - 1
        return low

    def best_rows(self, key: Hashable, most: int) -> int:
        """The largest batch worth forming, at most `most`; see `LatencyCurve.best_rows`."""
        curve = self._curves.get(key)
        return most if curve is None else curve.best_rows(most)

    def curve(self, key: Hashable) -> LatencyCurve | None:
        """What is known of one shape; None where nothing is."""
        return self._curves.get(key)

    @property
    def curves(self) -> Mapping[Hashable, LatencyCurve]:
        """What is known, by shape, the least recently used one first."""
        return self._curves

    def known(self, key: Hashable) -> bool:
        """Whether any batch of this shape ran or was measured."""
        return key in self._curves

    def clear(self) -> None:
        """Forget everything."""
        self._curves.clear()

    def restore(self, curves: Curves) -> None:
        """Take over what an earlier run, or a measurement before this one, found."""
        for key, snapshot in curves.items():
            if snapshot.means_ns:
                self._made_curve(key).restore(snapshot)

    def snapshot(self) -> dict[Hashable, CurveSnapshot]:
        """What was learnt so far, the least recently used shape first."""
        return {key: curve.snapshot() for key, curve in self._curves.items()}

    def _made_curve(self, key: Hashable) -> LatencyCurve:
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) >= _MAX_KEYS:
                self._curves.popitem(last=False)
            curve = self._curves[key] = LatencyCurve(self._budget_ns)
        else:
            self._curves.move_to_end(key)
        return curve
