"""A deployment over a day: pods that start, serve and drain, requests spread over them, and who scales them.

Every `SYNC_S` the pods' metrics are read, each as its mean since the last time; `LAG_S` later the autoscaler sees
them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from bench.autoscaling.hpa import SYNC_S, HorizontalAutoscaler, proposed_replicas
from bench.autoscaling.pods import Pod
from bench.autoscaling.services import Service

STEP_S = 5
LAG_S = 5
START_S = 60
"""From the decision to the first request: scheduling, image (cached on the node), process, model."""
DRAIN_S = 10
LEAST, MOST = 2, 60
DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a pod's metric is, what its mean should be, and what a pod without a metric counts as on the way down."""

    name: str
    metric: Callable[[_Ready], float]
    target: float
    missing_high: float

    def at(self, target: float) -> Policy:
        """The same with another target."""
        high = max(1.0, target) if self.name == "cpu" else target
        return Policy(name=self.name, metric=self.metric, target=target, missing_high=high)


@dataclass(slots=True)
class _Ready:
    """A pod that serves, with what it was busy and had waiting in the steps since the last scrape."""

    pod: Pod
    busy: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)


CPU = Policy(name="cpu", metric=lambda each: float(np.mean(each.busy)), target=0.7, missing_high=1.0)
QUEUE = Policy(name="queue", metric=lambda each: float(np.mean(each.waiting)), target=10.0, missing_high=10.0)
ERG = Policy(name="erg", metric=lambda each: each.pod.replicas_needed(), target=1.0, missing_high=1.0)


@dataclass(slots=True)
class Run:
    """A day's outcome. `offered` and `in_time` are by model; `replicas` by step has starting and draining pods, too."""

    offered: np.ndarray
    in_time: np.ndarray
    lost: int = 0
    replicas: list[int] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)

    @property
    def attainment(self) -> float:
        """Share of requests answered within the objective, of the model where it is least."""
        return float((self.in_time / np.maximum(1.0, self.offered)).min())

    @property
    def replica_hours(self) -> float:
        """Of every pod from the decision to start it until it is gone."""
        return sum(self.replicas) * STEP_S / 3600


def simulate(
    service: Service,
    rates_per_s: Sequence[float],
    policy: Policy,
    make_pod: Callable[[int], Pod],
    *,
    seed: int,
    drain: bool = True,
    start: int = LEAST,
) -> Run:
    """Serve the rates, one for each `STEP_S`, by pods of `make_pod`, which is given a number.

    A pod that is stopped without `drain` loses what it accepted.
    """
    rng = np.random.default_rng(seed)
    shares = np.array(service.shares)
    run = Run(np.zeros(len(shares)), np.zeros(len(shares)))
    autoscaler = HorizontalAutoscaler(LEAST, MOST)
    made = 0

    def new() -> Pod:
        nonlocal made
        made += 1
        return make_pod(seed * 10_000 + made)

    ready = [_Ready(new()) for _ in range(start)]
    starting: list[int] = []
    draining: list[int] = []
    values: list[float] = []
    for number, rate in enumerate(rates_per_s):
        now_s = number * STEP_S
        ready += [_Ready(new()) for at_s in starting if at_s <= now_s]
        starting = [at_s for at_s in starting if at_s > now_s]
        draining = [at_s for at_s in draining if at_s > now_s]
        if now_s and now_s % SYNC_S == 0:
            values = [policy.metric(each) for each in ready]
            for each in ready:
                each.busy.clear()
                each.waiting.clear()
        elif values and now_s % SYNC_S == LAG_S:
            current = len(ready) + len(starting)
            missing = current - len(values)
            proposed = proposed_replicas(values, missing, policy.target, current, missing_high=policy.missing_high)
            wanted = autoscaler.replicas(now_s, proposed, current)
            starting += [now_s + START_S] * (wanted - current)
            for _ in range(current - wanted):
                # A pod that is not ready goes first, then the newest.
                if starting:
                    starting.pop()
                    continue
                step, lost = ready.pop().pod.stop(drain=drain)
                run.offered += step.offered
                run.in_time += step.in_time
                run.lost += lost
                draining.append(now_s + DRAIN_S)
        run.replicas.append(len(ready) + len(starting) + len(draining))
        each_rate = rate / len(ready)
        missed = 0.0
        counts = rng.poisson(each_rate * STEP_S * shares, size=(len(ready), len(shares)))
        for each, count in zip(ready, counts, strict=True):
            step = each.pod.step(count.tolist(), each_rate, STEP_S)
            run.offered += step.offered
            run.in_time += step.in_time
            missed += sum(step.offered) - sum(step.in_time)
            each.busy.append(step.busy)
            each.waiting.append(step.waiting)
        run.missed.append(missed)
    for each in ready:
        step, lost = each.pod.stop(drain=True)
        run.offered += step.offered
        run.in_time += step.in_time
        run.lost += lost
    return run
