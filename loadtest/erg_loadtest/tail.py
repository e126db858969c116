"""The curve of latencies, dense where few requests are. Pure."""

from __future__ import annotations

import numpy as np

from erg_loadtest.samples import Int64s

MAX_POINTS = 400


def latency_tail(latencies_ns: Int64s, points: int = MAX_POINTS) -> tuple[tuple[float, float], ...]:
    """Pairs of a share and the milliseconds within which that share was answered; shares even in nines.

    A long run keeps its last samples so, and needs no more points than a picture has.
    """
    ordered = np.sort(latencies_ns) / 1e6
    count = len(ordered)
    if not count:
        return ()
    shares = 1 - np.logspace(0, -np.log10(count + 1), num=min(count, points))
    indexes = np.unique(np.minimum((shares * count).astype(np.int64), count - 1))
    return tuple((int(index) / count, float(ordered[index])) for index in indexes)
