"""The rates that a deployment gets over a day, a value for each step: the trace, and gusts of seconds by a seed."""

from __future__ import annotations

import numpy as np
from bench.autoscaling.cluster import DAY_S, STEP_S
from bench.autoscaling.trace import rate_at, read_day

GUSTS_PER_HOUR = 12


def rates(day: str, peak_per_s: float, seed: int) -> np.ndarray:
    """Requests a second by step: gusts of up to half more for 10 to 40 seconds are what no autoscaler can follow."""
    rng = np.random.default_rng(seed)
    minutes = read_day(day)
    steps = DAY_S // STEP_S
    base = np.array([rate_at(minutes, number * STEP_S) for number in range(steps)])
    factors = np.ones(steps)
    for at in rng.integers(0, steps, size=rng.poisson(GUSTS_PER_HOUR * DAY_S / 3600)):
        length = int(rng.integers(2, 9))
        factors[at : at + length] = np.maximum(factors[at : at + length], rng.uniform(1.1, 1.5))
    return base * factors * peak_per_s
