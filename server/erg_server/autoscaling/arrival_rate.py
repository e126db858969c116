"""The rate at which a model's rows arrive, from a counter that is looked at now and then. Pure: `now` is passed in.

Each server's estimate is *linear* in what arrived: an exponential average that starts at 0. So the sum over servers is
the same average of the whole load, however a load balancer spreads it and whenever servers join: what a new server does
not remember yet, the others have not forgotten. An estimate that falls more slowly than it rises would count the load
twice whenever servers are added, and so add more of them.
"""

from __future__ import annotations

import math
from typing import Final

WINDOW_NS: Final = 10_000_000_000
"""Time constant: two thirds of a step are seen after it, and the noise is that of a count over twice as long."""


class ArrivalRate:
    """Exponential average of rows a second. Looks may be at any distance; each counts with the time since the last."""

    __slots__ = ("_at_ns", "rows_per_s")

    def __init__(self, now_ns: int) -> None:
        self._at_ns = now_ns
        self.rows_per_s = 0.0

    def observe(self, now_ns: int, rows: float) -> None:
        """So many rows arrived since the last look. Rows of looks at the same instant count at the next one."""
        passed_ns = now_ns - self._at_ns
        if passed_ns <= 0:
            raise ValueError(f"the last look was {-passed_ns} ns later")
        self._at_ns = now_ns
        kept = math.exp(-passed_ns / WINDOW_NS)
        self.rows_per_s = self.rows_per_s * kept + max(0.0, rows) * 1e9 / passed_ns * (1 - kept)
