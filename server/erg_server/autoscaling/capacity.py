"""How many rows a second one server carries while its objective holds. Pure: of one shape's latencies and a promise.

A batch of b rows takes s(b), n devices run `n * b / s(b)` rows a second, and a row waits for a device, then for its
batch. Arrivals are irregular, so devices that are always busy answer late: what part of their time may be used is found
from the wait's distribution in a queue with n servers. The share of rows that wait at all is about
`utilization ** (sqrt(2 * (n + 1)) - 1)` (H. Sakasegawa, "An approximation formula", Ann. Inst. Stat. Math. 29, 1977), and
their wait is about exponential with the decay `2 * (1 - utilization) * rate / (a + s)`, where a and s are the squared
coefficients of variation of arrivals and services (J. F. C. Kingman, "On queues in heavy traffic", J. R. Stat. Soc. B 24,
1962): 1 and near 0 for independent callers and batches. The utilization at which one row in a hundred waits longer than
the objective leaves is near 1 where that is time for many rows, and low where it is hardly time for one. A row that just
missed a batch waits for that one's end too, which over n staggered devices takes an nth of a batch (Chen et al.,
"Symphony", arXiv 2308.07470).
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from erg_server.scheduling.admission import LATE_SHARE
from erg_server.scheduling.slack import SLACK_MARGIN_NS

_VARIATION: Final = 1.0
"""Squared coefficients of variation of arrivals (Poisson) and of service (none), together."""
_STEPS: Final = 12
"""Halvings of the interval in which the utilization is: to a 4,000th."""
MOST_UTILIZED: Final = 0.95
"""Share of the devices' time that is planned with at most, however long the objective is."""
LEAST_UTILIZED: Final = 0.1
"""At least: an objective that only an idle server keeps has no end to the servers it asks for."""
WITHOUT_OBJECTIVE: Final = 0.75
"""Share of the devices' time that models without an objective, or with one that nobody can keep, may take."""


class Latencies(Protocol):
    """What is asked of a shape's latencies; `scheduling.latency_curve.LatencyCurve` has them."""

    def predict_ns(self, rows: int) -> float:
        """The expected duration of a batch."""
        ...

    def predict_high_ns(self, rows: int) -> float:
        """What 99 % of batches take no longer than."""
        ...

    def best_rows(self, most: int) -> int:
        """The largest batch worth forming."""
        ...


def carried_rows_per_s(curve: Latencies, *, objective_ns: int, devices: int, most_rows: int) -> float:
    """The highest rate at which 99 % of rows are answered within `objective_ns` (0: none) by so many devices.

    Positive and finite for any curve. Batches have at most `most_rows` rows.
    """
    devices = max(1, devices)
    best = max(1, curve.best_rows(max(1, most_rows)))
    if not objective_ns or curve.predict_high_ns(1) + SLACK_MARGIN_NS >= objective_ns:
        return WITHOUT_OBJECTIVE * max(_full_rate(curve, rows, devices) for rows in _sizes(best))
    carried = 0.0
    for rows in _sizes(best):
        full = _full_rate(curve, rows, devices)
        # A batch of one row joins no other: it waits in a queue, whose wait the approximation has.
        residual_ns = curve.predict_ns(rows) / devices if rows > 1 else 0.0
        left_s = (objective_ns - SLACK_MARGIN_NS - curve.predict_high_ns(rows) - residual_ns) * 1e-9
        carried = max(carried, full * utilization(full * left_s, devices) if left_s > 0 else 0.0)
    return max(carried, LEAST_UTILIZED * _full_rate(curve, 1, devices))


def utilization(rows_left: float, devices: int) -> float:
    """Share of the devices' time at which one row in a hundred waits longer than they take for `rows_left` rows."""
    exponent = math.sqrt(2 * (devices + 1)) - 1
    low, high = 0.0, MOST_UTILIZED
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if middle**exponent * math.exp(-2 * (1 - middle) * rows_left / _VARIATION) <= LATE_SHARE:
            low = middle
        else:
            high = middle
    return low


def _full_rate(curve: Latencies, rows: int, devices: int) -> float:
    """Rows a second of devices that are always busy with batches of so many rows."""
    return devices * rows * 1e9 / max(1.0, curve.predict_ns(rows))


def _sizes(most: int) -> list[int]:
    """1, 2, 4, … and the largest."""
    return sorted({most, *(1 << power for power in range(most.bit_length()))})
