"""How many servers like this one a load needs, from latencies, objectives and rates. Pure.

A batch of b rows takes s(b), and n devices are busy with a row of it for s(b) / b. A request has its objective, less
its own batch, to wait for a device, and one that just missed a batch waits for that one's end too, which over n
staggered devices takes an nth of it (Chen et al., "Symphony", arXiv 2308.07470). What part of the devices' time may
then be used is `utilization`'s; the batch size is the one with which the server carries most. Models that share
devices wait for each other's rows: what counts as a row is then their mean by the time they take (in the M/G/1 queue
the wait grows with `E[S^2] / E[S]`), and all of them are held to the least share that any of them allows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from erg_server.autoscaling.utilization import LEAST, utilization
from erg_server.scheduling.admission import LATE_SHARE
from erg_server.scheduling.slack import SLACK_MARGIN_NS

WITHOUT_OBJECTIVE: Final = 0.75
"""Share of the devices' time for models without an objective, or with one that even an idle server cannot keep."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Rows of one shape of a model: how many come, within what time they are to be answered (0: none), and where.

    `margin` is how much more capacity it is to have than its mean load takes; without an objective it has its own.
    """

    rows_per_s: float
    latencies: Latencies
    objective_ns: int
    most_rows: int
    workers: frozenset[str]
    margin: float = 1.0


@dataclass(frozen=True, slots=True)
class _Batching:
    """A demand with a batch size: device time of a row, and of the batch where others wait for its end, else 0."""

    demand: Demand
    rows: int
    row_ns: float
    batch_ns: float

    @property
    def busy(self) -> float:
        """Devices that it keeps busy."""
        return self.demand.rows_per_s * self.row_ns * 1e-9


def servers_needed(demands: Collection[Demand]) -> float:
    """0 for no load, and never infinite. Where models have different devices, the set needed most decides.

    Looked at are each model's set, with whatever runs nowhere else, and all devices: of Hall's theorem's conditions
    those for these sets.
    """
    sets = {demand.workers for demand in demands if demand.workers}
    if len(sets) > 1:
        sets.add(frozenset().union(*sets))
    return max((_needed_on(each, [one for one in demands if one.workers <= each]) for each in sets), default=0.0)


def _needed_on(workers: frozenset[str], demands: Sequence[Demand]) -> float:
    total = sum(demand.rows_per_s for demand in demands)
    if total <= 0:
        return 0.0
    # Of a hundred requests one may be late, so who sends fewer than that does not decide.
    deciding = [demand for demand in demands if demand.rows_per_s >= LATE_SHARE * total]
    chosen = [_batching(demand, 0.0, 0.0) for demand in demands]
    row_ns, batch_ns = _mixed(chosen, deciding)
    if len(demands) > 1:
        chosen = [_batching(demand, row_ns, batch_ns) for demand in demands]
        row_ns, batch_ns = _mixed(chosen, deciding)
    used = min(_usable(each.demand, each.rows, row_ns, batch_ns) for each in chosen if each.demand in deciding)
    return sum(each.busy for each in chosen) / len(workers) / used


def _mixed(chosen: Sequence[_Batching], deciding: Collection[Demand]) -> tuple[float, float]:
    """What counts as a row for all of them, and the longest batch that somebody waits for."""
    busy = sum(each.busy for each in chosen)
    row_ns = sum(each.busy * each.row_ns for each in chosen) / busy
    return row_ns, max((each.batch_ns for each in chosen if each.demand in deciding), default=0.0)


def _batching(demand: Demand, row_ns: float, batch_ns: float) -> _Batching:
    """The batch size with which most rows are carried beside others' rows and batches of such a length."""
    latencies = demand.latencies
    best = max(1, latencies.best_rows(max(1, demand.most_rows)))
    found, most = 1, -1.0
    for rows in sorted({best, *range(1, 5), *range(4, best, 4)} if best > 4 else range(1, best + 1)):
        own_ns = latencies.predict_ns(rows) / rows
        blocking_ns = max(batch_ns, latencies.predict_ns(rows) if rows > 1 else 0.0)
        carried = _usable(demand, rows, max(own_ns, row_ns), blocking_ns) / max(1.0, own_ns)
        if carried > most:
            found, most = rows, carried
    duration_ns = max(1.0, latencies.predict_ns(found))
    return _Batching(demand, found, duration_ns / found, duration_ns if found > 1 else 0.0)


def _usable(demand: Demand, rows: int, row_ns: float, batch_ns: float) -> float:
    """Share of the devices' time that may be used so that this demand is answered in time in batches of `rows`."""
    latencies, objective_ns = demand.latencies, demand.objective_ns
    if not objective_ns or latencies.predict_high_ns(1) + SLACK_MARGIN_NS >= objective_ns:
        return WITHOUT_OBJECTIVE
    devices = max(1, len(demand.workers))
    left_ns = objective_ns - SLACK_MARGIN_NS - latencies.predict_high_ns(rows) - batch_ns / devices
    used = utilization(devices * left_ns / max(1.0, row_ns), devices) if left_ns > 0 else LEAST
    return used / demand.margin
