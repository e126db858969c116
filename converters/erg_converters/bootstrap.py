"""Confidence intervals by resampling what was compared, in pairs.

The percentile interval of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. Source and
variant answered the same samples, so a resample draws samples and takes both answers to each: what the two find hard
alike cancels out, and the interval is that of the drop, not of two figures side by side. It knows of no error that the
samples do not show: where no sample differs it has no width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]


def interval(
    samples: int,
    statistic: Callable[[Indices], float],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    center: float | None = None,
) -> tuple[float, float]:
    """The bounds between which the statistic lies with that confidence.

    Args:
        samples: how many were compared, at least 1.
        statistic: its value on the samples of these indices, int [samples], which may repeat.
        confidence: between 0 and 1.
        resamples: how many times to draw.
        seed: equal seeds give equal intervals.
        center: the statistic of the samples themselves, where resamples give another even in the mean, because they
            hold samples twice. That difference, the bootstrap's estimate of its bias (chapter 10), is then taken off.
    """
    random = np.random.default_rng(seed)
    values = np.array([statistic(random.integers(0, samples, samples)) for _ in range(resamples)])
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values, (tail, 1.0 - tail))
    bias = 0.0 if center is None else float(values.mean()) - center
    return float(low) - bias, float(high) - bias
