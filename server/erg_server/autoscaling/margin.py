"""How much more capacity a model needs than its mean load tells, learnt from what became of its requests. Pure.

Bursts come before new servers do, load balancers are uneven, an autoscaler lets a tenth pass (HPA's tolerance), and
predictions err. How much all of that takes depends on the load, and shows in one figure: the share of requests that
were not answered in time. So the margin is an integral controller of that share: it grows with every request that was
late, refused or dropped, and shrinks with every other one, so that over hours one in a hundred is. Servers of a
deployment get the same load, and so come to the same margin.
"""

from __future__ import annotations

import math
from typing import Final

from erg_server.scheduling.admission import LATE_SHARE

FIRST: Final = 1.25
LEAST: Final = 1.05
MOST: Final = 1.6
MEMORY_S: Final = 4 * 3600.0
"""Without a late request the margin shrinks by a factor e in this time; it grows by it with a hundred times as many."""


class Margin:
    """One model's factor."""

    __slots__ = ("_log", "_rate", "_seconds")

    def __init__(self) -> None:
        self._log = math.log(FIRST)
        self._rate = 0.0
        self._seconds = 0.0

    @property
    def factor(self) -> float:
        """Capacity over mean load."""
        return math.exp(self._log)

    def observe(self, seconds: float, in_time: float, late: float) -> None:
        """So many requests were answered in time, and so many were not, in the last `seconds`."""
        total = in_time + late
        self._seconds += seconds
        # A plain mean at first, and then an exponential one.
        self._rate += min(1.0, max(seconds / self._seconds, seconds / MEMORY_S)) * (total / seconds - self._rate)
        if self._rate > 0:
            self._log += (late / LATE_SHARE - total) / (self._rate * MEMORY_S)
            self._log = min(math.log(MOST), max(math.log(LEAST), self._log))
