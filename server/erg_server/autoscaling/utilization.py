"""What share of its devices' time a server may use while 99 of 100 requests are answered in time. Pure.

Requests that come independently find devices busy now and then, whatever the mean load is, and those that would wait
for longer than the objective leaves are refused. How many these are is known for queues like that: with W the wait
were nobody refused, `(1 - u) P(W > t) / (1 - u P(W > t))` (N. Boots and H. Tijms, "A multiserver queueing system with
impatient customers", Management Science 45(3), 1999). The tail of W where each row takes the devices equally long is
exponential, `(1 - u) / (u e^h - 1) * e^(-h t)`, with t in rows that fit in the time and h the root of `u (e^h - 1) =
h` (H. Tijms, "A First Course in Stochastic Models", 2003, on the M/D/1 queue). Of n devices, all are busy less often
than one as fast as they together, by the factor `u ** (sqrt(2 (n + 1)) - 2)` (H. Sakasegawa, "An approximation
formula L_q = a p^b / (1 - p)", Annals of the Institute of Statistical Mathematics 29, 1977). Nothing here is fitted;
docs/benchmarks.md has what the real scheduler does beside it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from typing import Final

from erg_server.scheduling.admission import LATE_SHARE

MOST: Final = 0.95
"""However long the objective is: predictions err, and a queue that is never empty grows by any error."""
LEAST: Final = 0.1
"""An objective that only an idle server keeps has no end to the servers that it asks for."""
_GRID: Final = tuple(2.0 ** (step / 4) for step in range(-12, 49))
"""Rows that fit in the time, an eighth to 4,096, between which the share is on a line over their logarithm."""


def utilization(rows_left: float, devices: int) -> float:
    """Share of the time of so many devices that may be used where they run `rows_left` rows in the time to wait."""
    shares = _shares(max(1, devices))
    if rows_left >= _GRID[-1]:
        return shares[-1]
    if rows_left <= _GRID[0]:
        return shares[0]
    above = bisect_left(_GRID, rows_left)
    low, high = shares[above - 1], shares[above]
    return low + (high - low) * 4 * math.log2(rows_left / _GRID[above - 1])


@lru_cache(maxsize=64)
def _shares(devices: int) -> tuple[float, ...]:
    return tuple(_find_share(rows_left, devices) for rows_left in _GRID)


def _find_share(rows_left: float, devices: int) -> float:
    """Bisection: more is refused the more is used."""
    low, high = LEAST, MOST
    for _ in range(16):
        middle = (low + high) / 2
        if refused_share(middle, rows_left, devices) <= LATE_SHARE:
            low = middle
        else:
            high = middle
    return low


def refused_share(used: float, rows_left: float, devices: int) -> float:
    """Share of rows that would wait too long, where the devices are `used` so much (between 0 and 1)."""
    decay = _decay(used)
    tail: float = (1 - used) / (used * math.exp(decay) - 1) * math.exp(-decay * rows_left)
    late = min(1.0, tail * math.pow(used, math.sqrt(2 * (devices + 1)) - 2))
    return (1 - used) * late / (1 - used * late)


def _decay(used: float) -> float:
    """The positive root h of `used * (e^h - 1) = h`, by bisection: below it the left side is less."""
    low, high = 0.0, 2.0
    while used * math.expm1(high) < high:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        if used * math.expm1(middle) < middle:
            low = middle
        else:
            high = middle
    return high
