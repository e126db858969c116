"""The best target of a policy for one load, and for all of them; searched on one seed and reported on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.autoscaling.bound import least_replica_hours
from bench.autoscaling.cluster import Policy, Run, simulate
from bench.autoscaling.load import rates
from bench.autoscaling.pods import PodTable, TabulatedPod
from bench.autoscaling.services import Service

ATTAINMENT = 0.99
TARGETS = {
    "cpu": tuple(percent / 100 for percent in range(90, 25, -5)),
    "queue": (10.0, 5.0, 3.0, 2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.07, 0.05),
    "erg": (1.3, 1.2, 1.1, 1.0, 0.9, 0.8, 0.7),
}
"""From fewest replicas to most."""
_WASTE = 4.0
"""Times the lower bound beyond which no lower target is tried."""


@dataclass(frozen=True, slots=True)
class Load:
    """A service, what its pods do at which rate, and a day."""

    service: Service
    table: PodTable
    day: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.service.name}, {self.day}"

    def run(self, policy: Policy, seed: int) -> Run:
        """The day, scaled by a policy. Equal arguments give equal runs."""
        service, table = self.service, self.table
        day = rates(self.day, service.peak_per_s, seed)
        return simulate(service, day, policy, lambda number: TabulatedPod(service, number, table), seed=seed)

    def bound(self, seed: int) -> float:
        """Replica-hours that nobody can go below."""
        day = rates(self.day, self.service.peak_per_s, seed)
        return least_replica_hours(self.service, self.table, day, ATTAINMENT)


@dataclass(frozen=True, slots=True)
class Figure:
    """Means over seeds of what a policy did with a load; the worst seed's attainment."""

    target: float
    attainment: float
    replica_hours: float
    lost: int

    @property
    def attained(self) -> bool:
        """Whether every seed kept the objective, to a tenth of a per cent."""
        return round(self.attainment, 3) >= ATTAINMENT


def measure(load: Load, policy: Policy, seeds: Sequence[int]) -> Figure:
    """Run a policy on every seed."""
    runs = [load.run(policy, seed) for seed in seeds]
    return Figure(
        policy.target,
        min(run.attainment for run in runs),
        sum(run.replica_hours for run in runs) / len(runs),
        sum(run.lost for run in runs),
    )


def best_target(load: Load, policy: Policy, seed: int, show: Callable[[str], None]) -> float | None:
    """The target of fewest replicas with which the objective is kept; None where none does at any reasonable price."""
    bound = load.bound(seed)
    for target in TARGETS[policy.name]:
        found = measure(load, policy.at(target), [seed])
        show(f"{load.name}: {policy.name} {target:g}: {found.attainment:.2%}, {found.replica_hours:.0f} replica-hours")
        if found.attained:
            return target
        if found.replica_hours > _WASTE * bound:
            return None
    return None
