"""How long a simulated model's batches take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from erg_server.scheduling.latency_curve import CurveSnapshot, LatencyCurve


@dataclass(frozen=True, slots=True)
class LinearCost:
    """`fixed_ns` for a batch and `row_ns` for each of its rows: what measured GPU models follow closely.

    `jitter` is the standard deviation over the mean.
    """

    fixed_ns: float
    row_ns: float
    jitter: float = 0.0

    def mean_ns(self, rows: int) -> float:
        """What a batch takes on average."""
        return self.fixed_ns + self.row_ns * rows


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Mean nanoseconds by rows, with straight lines between; see `LatencyCurve.predict_ns`."""

    means_ns: Mapping[int, float]
    jitter: float = 0.0

    def mean_ns(self, rows: int) -> float:
        """What a batch takes on average."""
        curve = LatencyCurve()
        curve.restore(CurveSnapshot(means_ns=self.means_ns))
        return curve.predict_ns(rows)


Cost = LinearCost | MeasuredCost


def sampler(cost: Cost, max_rows: int, rng: Random) -> Callable[[int], int]:
    """Draws a batch's duration by its rows; never below half of the mean."""
    means = [0.0] + [cost.mean_ns(rows) for rows in range(1, max_rows + 1)]
    if not cost.jitter:
        fixed = [max(1, round(mean)) for mean in means]
        return fixed.__getitem__
    return lambda rows: max(1, round(means[rows] * max(0.5, rng.gauss(1.0, cost.jitter))))
