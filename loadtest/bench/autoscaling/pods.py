"""A pod that takes a rate for a while: by the real scheduler, or by what that was measured to do at the rate.

Objectives are a second at most and a rate stays for seconds, so a pod is as it would be if its rate had always been
the one it has now. `tabulate` measures that with the real scheduler; days of a cluster then take seconds. What the
signal reads (`erg_server.autoscaling.replicas`) is the real code in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np
from bench.autoscaling.services import Service
from erg_server.autoscaling.replicas import ReplicaNeed, ServedQueue
from erg_server.simulation.simulation import Simulation


@dataclass(slots=True)
class PodStep:
    """What became of a pod's requests, by model, how busy its devices were, and how many requests waited on average."""

    offered: Sequence[float]
    in_time: Sequence[float]
    busy: float
    waiting: float


class Pod(Protocol):
    """A pod that is ready."""

    def step(self, counts: Sequence[int], rate_per_s: float, seconds: float) -> PodStep:
        """Take `counts` requests by model, which come at `rate_per_s`, within `seconds`."""
        ...

    def replicas_needed(self) -> float:
        """The server's own signal, looked at now."""
        ...

    def stop(self, *, drain: bool) -> tuple[PodStep, int]:
        """No more requests come: finish what was accepted if `drain`, and say how many are never answered."""
        ...


def need_of(pod: Simulation) -> ReplicaNeed:
    """The server's signal over a simulated pod."""
    workers = frozenset(worker.name for worker in pod.workers)
    return ReplicaNeed(pod.clock, lambda: [ServedQueue(queue=queue, workers=workers) for queue in pod.queues])


class ScheduledPod:
    """The real scheduler, request by request."""

    def __init__(self, service: Service, seed: int, table: object = None) -> None:
        self.pod = service.pod(seed)
        self._need = need_of(self.pod)
        self._rng = Random(seed)  # noqa: S311 (a simulation)
        self._before = self._counts()
        self._busy_ns = 0

    def step(self, counts: Sequence[int], rate_per_s: float, seconds: float) -> PodStep:
        """See `Pod`."""
        pod = self.pod
        start_ns, length_ns = pod.clock.now_ns(), round(seconds * 1e9)
        arrivals = sorted(
            (start_ns + int(self._rng.random() * length_ns), number)
            for number, count in enumerate(counts)
            for _ in range(count)
        )
        waiting = 0
        for at_ns, number in arrivals:
            pod.timers.run(at_ns)
            # Poisson arrivals see time averages.
            waiting += sum(len(queue.batcher.queue) for queue in pod.queues)
            pod.send(number)
        pod.timers.run(start_ns + length_ns)
        busy_ns = sum(worker.busy_ns for worker in pod.workers)
        busy = (busy_ns - self._busy_ns) / (len(pod.workers) * length_ns)
        self._busy_ns = busy_ns
        offered, in_time = self._passed()
        return PodStep(offered, in_time, min(1.0, busy), waiting / len(arrivals) if arrivals else 0.0)

    def replicas_needed(self) -> float:
        """See `Pod`."""
        return self._need.look().replicas

    def stop(self, *, drain: bool) -> tuple[PodStep, int]:
        """See `Pod`."""
        if drain:
            self.pod.timers.run()
        unanswered = sum(
            outcome.offered - outcome.in_time - outcome.late - outcome.refused - outcome.dropped
            for outcome in self.pod.outcomes
        )
        return PodStep(*self._passed(), busy=0.0, waiting=0.0), unanswered

    def _counts(self) -> list[tuple[int, int]]:
        return [(outcome.offered, outcome.in_time) for outcome in self.pod.outcomes]

    def _passed(self) -> tuple[list[float], list[float]]:
        before, self._before = self._before, self._counts()
        pairs = list(zip(self._before, before, strict=True))
        return [float(now[0] - then[0]) for now, then in pairs], [float(now[1] - then[1]) for now, then in pairs]


@dataclass(frozen=True, slots=True)
class PodTable:
    """A pod in the steady state by rate: shares in time and answered by model, busy share, mean requests waiting."""

    rates_per_s: np.ndarray
    in_time: np.ndarray
    answered: np.ndarray
    busy: np.ndarray
    waiting: np.ndarray

    def at(self, values: np.ndarray, rate_per_s: float) -> float:
        """A column's value at a rate, on straight lines."""
        return float(np.interp(rate_per_s, self.rates_per_s, values))


def tabulate(service: Service, full_per_s: float, *, requests: int, seed: int) -> PodTable:
    """Measure a pod at rates up to four times `full_per_s`, about what its devices can do."""
    shares = (0.05, 0.15, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.3, 1.7, 2.5, 4.0)
    rates, in_time, answered, busy, waiting = (
        [0.0],
        [[1.0] * len(service.models)],
        [[1.0] * len(service.models)],
        [0.0],
        [0.0],
    )
    for share in shares:
        rate = share * full_per_s
        pod = ScheduledPod(service, seed)
        rng = np.random.default_rng(seed)
        pod.step(_draw(rng, service, rate, 2.0), rate, 2.0)
        before = [(outcome.offered, outcome.refused + outcome.dropped) for outcome in pod.pod.outcomes]
        seconds = max(4.0, requests / rate)
        step = pod.step(_draw(rng, service, rate, seconds), rate, seconds)
        rates.append(rate)
        in_time.append([met / max(1.0, sent) for met, sent in zip(step.in_time, step.offered, strict=True)])
        lost = [outcome.refused + outcome.dropped for outcome in pod.pod.outcomes]
        answered.append([
            1 - (after - then[1]) / max(1.0, sent) for after, then, sent in zip(lost, before, step.offered, strict=True)
        ])  # fmt: skip
        busy.append(step.busy)
        waiting.append(step.waiting)
    return PodTable(
        rates_per_s=np.array(rates),
        in_time=np.minimum(1.0, in_time),
        answered=np.minimum(1.0, answered),
        busy=np.minimum(1.0, busy),
        waiting=np.array(waiting),
    )


def _draw(rng: np.random.Generator, service: Service, rate_per_s: float, seconds: float) -> list[int]:
    return [int(rng.poisson(rate_per_s * share * seconds)) for share in service.shares]


class TabulatedPod:
    """A pod that does what the real scheduler was measured to do at its rate, and counts like it."""

    def __init__(self, service: Service, seed: int, table: PodTable) -> None:
        self._service = service
        self._table = table
        self._pod = service.pod(seed)
        self._need = need_of(self._pod)

    def step(self, counts: Sequence[int], rate_per_s: float, seconds: float) -> PodStep:
        """See `Pod`."""
        table, pod = self._table, self._pod
        pod.clock.advance(round(seconds * 1e9))
        waiting = table.at(table.waiting, rate_per_s)
        in_time = []
        for number, (count, queue) in enumerate(zip(counts, pod.queues, strict=True)):
            in_time.append(count * table.at(table.in_time[:, number], rate_per_s))
            answered = round(count * table.at(table.answered[:, number], rate_per_s))
            meter = queue.meter
            meter.met_deadlines += min(answered, round(in_time[-1]))
            meter.missed_deadlines += answered - min(answered, round(in_time[-1]))
            meter.rows += answered
            meter.success_count += answered
            meter.failures["REJECTED"] += count - answered
            meter.refusals["predicted_late"] += count - answered
            queue.batcher.queue.rows = round(waiting * self._service.shares[number])
        return PodStep(counts, in_time, table.at(table.busy, rate_per_s), waiting)

    def replicas_needed(self) -> float:
        """See `Pod`."""
        return self._need.look().replicas

    def stop(self, *, drain: bool) -> tuple[PodStep, int]:
        """See `Pod`; what waits is what is lost."""
        nothing = [0.0] * len(self._service.models)
        waiting = sum(queue.batcher.queue.rows for queue in self._pod.queues)
        return PodStep(nothing, nothing, 0.0, 0.0), 0 if drain else waiting
