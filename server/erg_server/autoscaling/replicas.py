"""How many servers like this one its load needs, looked at when somebody asks. Owns what is learnt of the load.

Rows that arrive and rows that wait, to be caught up with within `CATCH_UP_S`, are the load; `capacity` says what it
needs. The result is proportional to the load, so that over servers it adds up to what all of them together need.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from erg_server.autoscaling.arrival_rate import ArrivalRate
from erg_server.autoscaling.arrivals_seen import ArrivalsSeen
from erg_server.autoscaling.capacity import Demand, Latencies, servers_needed
from erg_server.autoscaling.margin import Margin
from erg_server.clock import Clock
from erg_server.scheduling.latency_curve import FIRST_SPREAD
from erg_server.scheduling.latency_model import UNMEASURED_ROW_NS
from erg_server.scheduling.model_queue import ModelQueue

CATCH_UP_S: Final = 30.0
"""Within what time what waits is to be done, beside what arrives meanwhile."""
MOST_SHAPES: Final = 16
"""Of a model, those that ran most lately. Shapes come from callers, and a look should take next to no time."""
_IDLE: Final = 1e-6
_NOTHING: Final = ArrivalsSeen(rows=0, lost_requests=0, in_time=0, late=0)

_Shape = tuple[str, Hashable]
"""A version and a shape of its requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedQueue:
    """A version that answers, and the workers, by name, that it may use."""

    queue: ModelQueue
    workers: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What was found: servers needed in all, and by model what waits and what time the tightest request has to spare.

    `slack_seconds` is what a request that came now would have where none waits; models that promise nothing and have no
    deadline waiting are not in it.
    """

    replicas: float
    queue_seconds: Mapping[str, float]
    slack_seconds: Mapping[str, float]


@dataclass(slots=True)
class _Load:
    """What is kept of one model, by name: its versions come and go."""

    rate: ArrivalRate
    margin: Margin = field(default_factory=Margin)
    # Rows that ran lately, by version and shape, and those that had run at the last look.
    mix: dict[_Shape, float] = field(default_factory=dict)
    seen: dict[_Shape, int] = field(default_factory=dict)


class ReplicaNeed:
    """Looks at what is served. Nothing is done between two looks."""

    def __init__(self, clock: Clock, served: Callable[[], Sequence[ServedQueue]]) -> None:
        self._clock = clock
        self._served = served
        self._began_ns = clock.now_ns()
        self._loads: dict[str, _Load] = {}
        self._arrivals: dict[tuple[str, str], ArrivalsSeen] = {}
        self._looked_ns = self._began_ns

    def look(self) -> Need:
        """Book what arrived since the last look, and say what it needs."""
        now_ns = self._clock.now_ns()
        models: dict[str, list[ServedQueue]] = {}
        for each in self._served():
            models.setdefault(each.queue.spec.name, []).append(each)
        for name in models:
            self._loads.setdefault(name, _Load(ArrivalRate(self._began_ns)))
        if now_ns > self._looked_ns:
            seconds = (now_ns - self._looked_ns) * 1e-9
            self._looked_ns = now_ns
            for name in self._loads:
                self._book(name, [each.queue for each in models.get(name, ())], now_ns, seconds)
        queue_seconds: dict[str, float] = {}
        slack_seconds: dict[str, float] = {}
        demands: list[Demand] = []
        for name, versions in models.items():
            of_model = self._demands(name, versions)
            waiting = sum(each.queue.batcher.queue.rows for each in versions)
            queue_seconds[name] = waiting * _mean_row_s(of_model)
            demands += [demand for demand, _ in of_model]
            slack = [ns for each in versions if (ns := slack_ns(each.queue, now_ns)) is not None]
            if slack:
                slack_seconds[name] = min(slack) * 1e-9
        return Need(replicas=servers_needed(demands), queue_seconds=queue_seconds, slack_seconds=slack_seconds)

    def _book(self, name: str, queues: Sequence[ModelQueue], now_ns: int, seconds: float) -> None:
        load = self._loads[name]
        rows = in_time = late = 0.0
        ran: dict[_Shape, int] = {}
        for queue in queues:
            key = (name, queue.version)
            arrivals, before = ArrivalsSeen.of(queue), self._arrivals.get(key, _NOTHING)
            meter = queue.meter
            rows_per_request = meter.rows / meter.success_count if meter.success_count else 1.0
            rows += arrivals.rows_since(before, rows_per_request)
            in_time += arrivals.in_time - before.in_time
            late += arrivals.late - before.late
            self._arrivals[key] = arrivals
            for shape, curve in queue.latency.curves.items():
                ran[queue.version, shape] = curve.rows_seen
        load.rate.observe(now_ns, rows)
        load.margin.observe(seconds, in_time, late)
        more = {shape: max(0, count - load.seen.get(shape, 0)) for shape, count in ran.items()}
        load.seen = ran
        # Shapes of half of what ran until the look before count a quarter, and so on; none ran: as it was.
        if any(more.values()):
            load.mix = {shape: load.mix.get(shape, 0.0) / 2 + count for shape, count in more.items()}

    def _demands(self, name: str, versions: Sequence[ServedQueue]) -> list[tuple[Demand, float]]:
        """The model's load by version and shape, with each one's part of it."""
        load = self._loads[name]
        shapes: list[tuple[float, ServedQueue, Latencies]] = []
        for each in versions:
            version, curves = each.queue.version, each.queue.latency.curves
            # What did not run lately counts where nothing did.
            shapes += [(load.mix.get((version, key), 0.0) + _IDLE, each, curve) for key, curve in curves.items()]
            if not curves:
                shapes.append((_IDLE, each, _Unmeasured()))
        shapes.sort(key=lambda shape: -shape[0])
        del shapes[MOST_SHAPES:]
        total = sum(weight for weight, *_ in shapes)
        rows_per_s = load.rate.rows_per_s + sum(each.queue.batcher.queue.rows for each in versions) / CATCH_UP_S
        return [
            (
                Demand(
                    rows_per_s=rows_per_s * weight / total,
                    latencies=latencies,
                    objective_ns=each.queue.objective_ns,
                    most_rows=each.queue.batcher.limits.max_rows,
                    workers=each.workers,
                    margin=load.margin.factor,
                ),
                weight / total,
            )
            for weight, each, latencies in shapes
        ]


def _mean_row_s(demands: Sequence[tuple[Demand, float]]) -> float:
    """Device time of a row in the largest batch that pays."""
    return sum(part * _row_ns(demand.latencies, demand.most_rows) for demand, part in demands) * 1e-9


def slack_ns(queue: ModelQueue, now_ns: int) -> int | None:
    """Until when the tightest waiting request can be started in time, or one that came now; negative when too late."""
    waiting = queue.batcher.queue
    expiry_ns = waiting.next_expiry_ns()
    if expiry_ns is not None:
        return expiry_ns - now_ns
    if not queue.objective_ns:
        return None
    alone_ns = max((curve.predict_high_ns(1) for curve in queue.latency.curves.values()), default=0.0)
    return queue.objective_ns - round(alone_ns)


def _row_ns(latencies: Latencies, most_rows: int) -> float:
    best = max(1, latencies.best_rows(most_rows))
    return latencies.predict_ns(best) / best


class _Unmeasured:
    """Nothing ran yet and nothing was measured: the guess that placement uses."""

    def predict_ns(self, rows: int) -> float:
        return float(rows * UNMEASURED_ROW_NS)

    def predict_high_ns(self, rows: int) -> float:
        return self.predict_ns(rows) * FIRST_SPREAD

    def best_rows(self, most: int) -> int:
        return most
