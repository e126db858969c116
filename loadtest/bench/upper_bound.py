"""What no scheduler can exceed on a recorded load: how many devices and how much of a rate it takes at the very least.

A relaxation, so that whatever any policy does is possible in it too. Every request costs the least device time that any
batch it could be in time with leaves it: a batch of k rows holds k requests of one model that came within the objective
less the time the batch runs, and each of them has a kth of it. All devices are one, which may divide its time at will
over whatever has come and is not late, and knows in advance what to leave out. What that device cannot do in time, in
the order of deadlines, is the least work that anybody leaves undone; who answers 99 % of every model's requests may
leave undone no more than each model's dearest hundredth.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from erg_server.simulation.arrivals import merge
from erg_server.simulation.simulation import SimulatedModel


def can_attain(
    models: Sequence[SimulatedModel],
    *,
    devices: int,
    duration_s: float,
    attainment: float,
    warm_up_ns: int = 0,
) -> bool:
    """Whether it is not ruled out that every model answers its share `attainment` of its requests within its promise.

    Draws the models' arrivals up to `duration_s`; requests of one row each. What comes before `warm_up_ns` counts for
    nobody and may be left out. Batches take their mean times: a run of jitter is off by its own mean, which is next to
    nothing over many batches.

    Raises:
        ValueError: a model promises nothing, so that nothing bounds it.
    """
    times = _by_model(models, round(duration_s * 1e9))
    dues: list[npt.NDArray[np.float64]] = []
    costs: list[npt.NDArray[np.float64]] = []
    comes: list[npt.NDArray[np.float64]] = []
    spared_ns = 0.0
    for model, came_ns in zip(models, times, strict=True):
        counted = came_ns >= warm_up_ns
        arrivals_ns, least_ns = came_ns[counted], least_costs(model, came_ns)[counted]
        offered = len(arrivals_ns)
        # The fewest answers with in_time / offered >= attainment, in floating point as it is judged.
        needed = next((n for n in range(int(attainment * offered), offered) if n / offered >= attainment), offered)
        # What is late even alone is left out in any case.
        possible = np.isfinite(least_ns)
        spare = offered - needed - int(np.count_nonzero(~possible))
        if spare < 0:
            return False
        arrivals_ns, least_ns = arrivals_ns[possible], least_ns[possible]
        spared_ns += float(np.sort(least_ns)[max(0, len(least_ns) - spare) :].sum())
        comes.append(arrivals_ns)
        dues.append(arrivals_ns + model.promise_ns)
        costs.append(least_ns)
    undone_ns = least_undone(np.concatenate(comes), np.concatenate(dues), np.concatenate(costs), devices)
    return undone_ns <= spared_ns * (1 + 1e-9) + 1.0


def least_costs(model: SimulatedModel, arrivals_ns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The least device time of each request, in nanoseconds; infinite for one that is late even alone.

    Args:
        model: its cost, its most rows and its promise.
        arrivals_ns: when its requests come, shape [n], ascending.
    """
    if not model.promise_ns:
        raise ValueError(f"model '{model.spec.name}' promises no latency, so every rate can be attained")
    count = len(arrivals_ns)
    least_ns = np.full(count, np.inf)
    for rows in range(1, min(max(1, model.spec.max_batch_size), count) + 1):
        batch_ns = model.cost.mean_ns(rows)
        first = arrivals_ns[: count - rows + 1]
        # Whether a batch may begin with each request, and from that whether one may hold it.
        begins = arrivals_ns[rows - 1 :] - first <= model.promise_ns - batch_ns
        edges = np.zeros(count + 1, dtype=np.int64)
        np.add.at(edges, np.flatnonzero(begins), 1)
        np.add.at(edges, np.flatnonzero(begins) + rows, -1)
        held = np.cumsum(edges[:-1]) > 0
        least_ns[held] = np.minimum(least_ns[held], batch_ns / rows)
    return least_ns


def least_undone(
    comes_ns: npt.NDArray[np.float64],
    dues_ns: npt.NDArray[np.float64],
    costs_ns: npt.NDArray[np.float64],
    devices: int,
) -> float:
    """The least work that cannot be done between when it comes and when it is due, by one divisible pool of devices.

    The earliest deadline first, without waiting, does the most: work is a matching of device time with requests whose
    windows hold it, and in such a convex bipartite graph that greedy choice is a maximum one (Glover, "Maximum matching
    in a convex bipartite graph", Naval Research Logistics Quarterly 14, 1967).

    Args:
        comes_ns: when each piece of work comes, shape [n].
        dues_ns: when it is due, shape [n].
        costs_ns: the device time it takes, shape [n].
        devices: how many work on it.
    """
    undone_ns = 0.0
    now_ns = 0.0
    waiting: list[tuple[float, float]] = []
    order = np.argsort(comes_ns, kind="stable")
    ends = [*comes_ns[order].tolist(), np.inf]
    for place, at in enumerate([*order.tolist(), -1]):
        until_ns = ends[place]
        while waiting and now_ns < until_ns:
            due_ns, left_ns = waiting[0]
            stop_ns = min(until_ns, due_ns)
            done_ns = (stop_ns - now_ns) * devices
            if done_ns >= left_ns:
                heapq.heappop(waiting)
                now_ns += left_ns / devices
            elif due_ns <= until_ns:
                heapq.heappop(waiting)
                undone_ns += left_ns - max(0.0, done_ns)
                now_ns = max(now_ns, stop_ns)
            else:
                heapq.heapreplace(waiting, (due_ns, left_ns - done_ns))
                now_ns = until_ns
        now_ns = max(now_ns, until_ns)
        if at >= 0:
            heapq.heappush(waiting, (float(dues_ns[at]), float(costs_ns[at])))
    return undone_ns


def _by_model(models: Sequence[SimulatedModel], end_ns: int) -> list[npt.NDArray[np.float64]]:
    """When each model's requests come."""
    times: list[list[int]] = [[] for _ in models]
    for at_ns, number in merge([model.arrivals for model in models], end_ns):
        times[number].append(at_ns)
    return [np.array(each, dtype=np.float64) for each in times]
