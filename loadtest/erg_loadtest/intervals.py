"""Confidence intervals of figures whose samples depend on each other, as a server's answers do. Pure.

Requests that share a queue are late together, so intervals that take them for independent are too narrow, several
times in a busy server. Here the run is cut into blocks of time, and what the blocks differ by tells the variance: the
method of batch means (Law, "Simulation Modeling and Analysis", chapter 9). Blocks know nothing of what differs from run
to run: two machines, or one machine on two days, differ by more than their intervals say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
MIN_BLOCKS = 5

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate and its bounds; None where the data do not bound it on that side."""

    value: float
    low: float | None
    high: float | None


def t_quantile(probability: float, degrees: float) -> float:
    """Student's t by Cornish and Fisher's expansion (Abramowitz and Stegun, 26.7.5); within 0.3 % from 4 degrees on."""
    if degrees < MIN_BLOCKS - 1:
        raise ValueError(f"{degrees:g} degrees of freedom are too few")
    x = NormalDist().inv_cdf(probability)
    return (
        x
        + (x**3 + x) / (4 * degrees)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * degrees**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * degrees**3)
        + (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / (92160 * degrees**4)
    )


def ratio(numerators: npt.ArrayLike, denominators: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval | str:
    """The sum of `numerators` over the sum of `denominators`, one of each a block; or why there is no interval.

    The ratio estimator's linear variance (Cochran, "Sampling Techniques", 6.3) with Student's t over the blocks.
    """
    above, below = _pair(numerators, denominators)
    if len(below) < MIN_BLOCKS:
        return f"an interval needs {MIN_BLOCKS} blocks of time, not {len(below)}: run longer"
    value = float(above.sum() / below.sum())
    reach = t_quantile(0.5 + confidence / 2, len(below) - 1) * _ratio_error(above, below)
    # A mean of what is never below zero is not either.
    low = value - reach if above.min() < 0 else max(0.0, value - reach)
    return Interval(value=value, low=low, high=value + reach)


def percentile(
    values: npt.ArrayLike, blocks: npt.ArrayLike, percent: float, confidence: float = CONFIDENCE
) -> Interval | str:
    """A percentile by nearest rank, bounded by order statistics; or why there is no interval.

    Woodruff (1952, "Confidence intervals for medians and other position measures"): the share of values under the
    estimate has a variance over the blocks, never taken for less than the binomial one, and its bounds are ranks. A
    rank past the last value leaves the percentile unbounded: the run was too short for it.

    `values` and `blocks` are of one shape [n]: each value and the number of the block that it fell in.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count, share = len(ordered), percent / 100
    if not count:
        return "there are no values"
    value = float(ordered[max(0, math.ceil(share * count) - 1)])
    sizes, hits = _by_block(np.asarray(values, dtype=np.float64) <= value, np.asarray(blocks, dtype=np.int64))
    if len(sizes) < MIN_BLOCKS:
        return f"an interval needs {MIN_BLOCKS} blocks of time with answers, not {len(sizes)}: run longer"
    error = max(_ratio_error(hits, sizes), math.sqrt(share * (1 - share) / count))
    reach = t_quantile(0.5 + confidence / 2, len(sizes) - 1) * error
    low, high = math.floor((share - reach) * count), math.ceil((share + reach) * count) + 1
    return Interval(
        value=value,
        low=float(ordered[low - 1]) if low >= 1 else None,
        high=float(ordered[high - 1]) if high <= count else None,
    )


def proportion(hits: npt.ArrayLike, totals: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval | str:
    """The share of `hits` in `totals`, one of each a block; or why there is no interval.

    Wilson's score interval of an effective sample size: the count, less what the blocks' variance exceeds the binomial
    one by (Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data"). Unlike a normal one it stays true, and within 0 and 1, where nearly all are hits.
    """
    above, below = _pair(hits, totals)
    if len(below) < MIN_BLOCKS:
        return f"an interval needs {MIN_BLOCKS} blocks of time, not {len(below)}: run longer"
    count, value = float(below.sum()), float(above.sum() / below.sum())
    binomial = value * (1 - value) / count
    design = max(1.0, _ratio_error(above, below) ** 2 / binomial) if binomial > 0 else 1.0
    z = t_quantile(0.5 + confidence / 2, len(below) - 1)
    n = count / design
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    # Rounding must not put the estimate outside of its own bounds.
    return Interval(value=value, low=min(value, max(0.0, middle - reach)), high=max(value, min(1.0, middle + reach)))


def quotient(above: Interval, below: Interval) -> Interval | None:
    """One figure over another that was measured apart; None where either may be zero or less.

    The method of variance estimates recovery (Zou and Donner 2008, "Construction of confidence limits about effect
    measures: a general approach") on logarithms: like Welch's, it lets the two differ in variance, and it keeps the
    skew that percentiles' intervals have.
    """
    if above.value <= 0 or below.value <= 0:
        return None
    value = above.value / below.value
    low = _log_reach(above.value, above.low), _log_reach(below.value, below.high)
    high = _log_reach(above.value, above.high), _log_reach(below.value, below.low)
    return Interval(
        value=value,
        low=None if None in low else value * math.exp(-math.hypot(*(each or 0.0 for each in low))),
        high=None if None in high else value * math.exp(math.hypot(*(each or 0.0 for each in high))),
    )


def _log_reach(value: float, bound: float | None) -> float | None:
    return None if bound is None or bound <= 0 else math.log(bound / value)


def _pair(above: npt.ArrayLike, below: npt.ArrayLike) -> tuple[Floats, Floats]:
    tops, bottoms = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    if tops.shape != bottoms.shape:
        raise ValueError("each block has one numerator and one denominator")
    used = bottoms > 0
    return tops[used], bottoms[used]


def _by_block(hits: npt.NDArray[np.bool_], blocks: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    sizes = np.bincount(blocks).astype(np.float64)
    found = np.bincount(blocks, weights=hits).astype(np.float64)
    return sizes[sizes > 0], found[sizes > 0]


def _ratio_error(above: Floats, below: Floats) -> float:
    count = len(below)
    residuals = above - above.sum() / below.sum() * below
    return float(math.sqrt(count / (count - 1) * float(residuals @ residuals)) / below.sum())
