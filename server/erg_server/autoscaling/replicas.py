"""How many servers like this one its load needs, looked at when somebody asks. Owns the estimates of every model's rate.

A model's rows a second over what the server carries of that model alone, within its objective, is the part of a server
that it needs; models that share devices add up. What waits adds as much as catching up takes. Where models have
different devices, those that are needed most decide: of each set of devices the models that run nowhere else, and of
all devices everything (the conditions of Hall's theorem for these sets).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from erg_server.autoscaling.arrival_rate import ArrivalRate
from erg_server.autoscaling.arrivals_seen import ArrivalsSeen
from erg_server.autoscaling.capacity import carried_rows_per_s
from erg_server.clock import Clock
from erg_server.scheduling.latency_curve import LatencyCurve
from erg_server.scheduling.latency_model import UNMEASURED_ROW_NS
from erg_server.scheduling.model_queue import ModelQueue

CATCH_UP_S: Final = 30.0
"""Within what time what waits is to be done, beside what arrives meanwhile."""

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
        if now_ns > self._looked_ns:
            self._looked_ns = now_ns
            for name in models.keys() | self._loads.keys():
                self._book(name, [each.queue for each in models.get(name, ())], now_ns)
        queue_seconds: dict[str, float] = {}
        demands: list[tuple[frozenset[str], float]] = []
        for name, versions in models.items():
            waiting_s, devices_needed = self._demand(name, versions)
            queue_seconds[name] = waiting_s
            demands.append((_workers(versions), devices_needed))
        return Need(
            replicas=servers_needed(demands),
            queue_seconds=queue_seconds,
            slack_seconds={
                name: min(slack) * 1e-9
                for name, versions in models.items()
                if (slack := [ns for each in versions if (ns := slack_ns(each.queue, now_ns)) is not None])
            },
        )

    def _book(self, name: str, queues: Sequence[ModelQueue], now_ns: int) -> None:
        load = self._loads.setdefault(name, _Load(ArrivalRate(self._began_ns)))
        rows = 0.0
        ran: dict[_Shape, int] = {}
        for queue in queues:
            key = (name, queue.version)
            arrivals = ArrivalsSeen.of(queue)
            meter = queue.meter
            rows_per_request = meter.rows / meter.success_count if meter.success_count else 1.0
            rows += arrivals.rows_since(self._arrivals.get(key, ArrivalsSeen(0, 0)), rows_per_request)
            self._arrivals[key] = arrivals
            for shape, curve in queue.latency.curves.items():
                ran[queue.version, shape] = curve.rows_seen
        load.rate.observe(now_ns, rows)
        more = {shape: max(0, count - load.seen.get(shape, 0)) for shape, count in ran.items()}
        load.seen = ran
        # Shapes of half of what ran until the look before count a quarter, and so on; none ran: as it was.
        if any(more.values()):
            load.mix = {shape: load.mix.get(shape, 0.0) / 2 + count for shape, count in more.items()}

    def _demand(self, name: str, versions: Sequence[ServedQueue]) -> tuple[float, float]:
        """Device-seconds that wait, and how many devices the model needs busy as the objectives allow."""
        load = self._loads.get(name)
        devices = len(_workers(versions))
        rows_waiting = sum(each.queue.batcher.queue.rows for each in versions)
        device_s = server_s = total = 0.0
        for each in versions:
            queue = each.queue
            most = queue.batcher.limits.max_rows
            for shape, curve in queue.latency.curves.items():
                weight = (load.mix.get((queue.version, shape), 0.0) if load is not None else 0.0) + _UNSEEN
                total += weight
                device_s += weight * _row_ns(curve, most) * 1e-9
                server_s += weight / carried_rows_per_s(
                    curve, objective_ns=queue.objective_ns, devices=devices, most_rows=most
                )
        if not total:
            # Nothing ran yet, and nothing was measured: the guess that placement uses.
            total, device_s = 1.0, UNMEASURED_ROW_NS * 1e-9
            server_s = device_s / devices
        rows_per_s = load.rate.rows_per_s if load is not None else 0.0
        waiting_s = rows_waiting * device_s / total
        return waiting_s, devices * rows_per_s * server_s / total + waiting_s / CATCH_UP_S


_UNSEEN: Final = 1e-6
"""Weight of a shape that did not run lately: next to nothing beside one that did, and all there is where none did."""


def servers_needed(demands: Collection[tuple[frozenset[str], float]]) -> float:
    """Servers like this one for models that need so many devices each of those named; see the module's text."""
    sets = {devices for devices, _ in demands if devices}
    if len(sets) > 1:
        sets.add(frozenset().union(*sets))
    return max(
        (sum(needed for devices, needed in demands if devices <= each) / len(each) for each in sets), default=0.0
    )


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


def _workers(versions: Sequence[ServedQueue]) -> frozenset[str]:
    return frozenset().union(*(each.workers for each in versions))


def _row_ns(curve: LatencyCurve, most_rows: int) -> float:
    """Device time of a row in the largest batch that pays."""
    best = max(1, curve.best_rows(most_rows))
    return curve.predict_ns(best) / best
