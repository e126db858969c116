"""The fewest replica-hours that keep an objective over a day, for who knows that day and starts pods in no time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bench.autoscaling.cluster import LEAST, MOST, STEP_S
from bench.autoscaling.pods import PodTable
from bench.autoscaling.services import Service

_STEPS = 40


def least_replica_hours(service: Service, table: PodTable, rates_per_s: Sequence[float], attainment: float) -> float:
    """A lower bound, by Lagrangian relaxation: pods cost, each request that is late costs, and the price is searched.

    At any price the total is below what a day that attains costs; the highest such bound of all prices is taken.
    """
    rates = np.asarray(rates_per_s, dtype=float)
    counts = np.arange(LEAST, MOST + 1)
    each = rates[:, None] / counts[None, :]
    worst = max(range(len(service.models)), key=lambda number: -table.in_time[:, number].sum())
    late = rates[:, None] * service.shares[worst] * (1 - np.interp(each, table.rates_per_s, table.in_time[:, worst]))
    allowed = (1 - attainment) * float(rates.sum()) * service.shares[worst]
    low, high, best = 0.0, 1e3, 0.0
    for _ in range(_STEPS):
        price = (low + high) / 2
        costs = counts[None, :] + price * late
        chosen = costs.argmin(axis=1)
        rows = np.arange(len(rates))
        best = max(best, float(costs[rows, chosen].sum() - price * allowed))
        if late[rows, chosen].sum() > allowed:
            low = price
        else:
            high = price
    return best * STEP_S / 3600
