"""The cluster of the autoscaling benchmark, by hand: a fault in it would flatter somebody."""

from __future__ import annotations

import numpy as np
import pytest
from bench.autoscaling.bound import least_replica_hours
from bench.autoscaling.cluster import CPU, DRAIN_S, ERG, LEAST, QUEUE, START_S, STEP_S, Policy, simulate
from bench.autoscaling.hpa import HorizontalAutoscaler, proposed_replicas
from bench.autoscaling.load import rates
from bench.autoscaling.pods import PodTable, ScheduledPod, TabulatedPod, tabulate
from bench.autoscaling.services import ServedModel, Service
from bench.autoscaling.trace import DAYS, MINUTES, rate_at, read_day, recipe

SMALL = Service(
    name="small", models=(ServedModel(name="m", objective_ms=400, fixed_ms=0, row_ms=100),), devices=1, peak_per_s=40
)
# A pod that does 10 requests a second, of which it answers what it can.
RATES = np.array([0.0, 9.0, 10.0, 20.0, 40.0])
TABLE = PodTable(
    rates_per_s=RATES,
    in_time=np.array([[1.0], [1.0], [0.98], [0.5], [0.25]]),
    answered=np.array([[1.0], [1.0], [0.98], [0.5], [0.25]]),
    busy=np.array([0.0, 0.9, 1.0, 1.0, 1.0]),
    waiting=np.array([0.0, 2.0, 3.0, 3.0, 3.0]),
)


def tabulated(number: int) -> TabulatedPod:
    return TabulatedPod(SMALL, number, TABLE)


def scheduled(number: int) -> ScheduledPod:
    return ScheduledPod(SMALL, number)


def hill(high: float, *, low: float = 5.0, minutes: int = 10) -> list[float]:
    """`low`, then `high` for a while, then `low` for twice as long."""
    steps = minutes * 60 // STEP_S
    return [low] * steps + [high] * steps + [low] * 2 * steps


@pytest.mark.parametrize(
    ("values", "missing", "target", "current", "proposed"),
    [
        # The documentation's own examples: twice the target doubles, half of it halves.
        ([200, 200], 0, 100, 2, 4),
        ([50, 50, 50, 50], 0, 100, 4, 2),
        # A tenth is let pass on both sides, and no more; a part of a pod is a pod.
        ([109, 109], 0, 100, 2, 2),
        ([91, 91], 0, 100, 2, 2),
        ([112, 112], 0, 100, 2, 3),
        # Pods that start are taken to have no load, so that nobody is called twice: 400 over 4 pods is the target.
        ([200, 200], 2, 100, 4, 4),
        ([300, 300], 2, 100, 4, 6),
        # ... and where fewer are proposed they are on target: (20 + 20 + 100) / 3 = 47 %, so 2 of 3.
        ([20, 20], 1, 100, 3, 2),
        # What starts may not turn a proposal round.
        ([120, 120], 2, 100, 4, 4),
        # Nor may pods on their way out: (4 * 20 + 100) / 5 = 36 % of 5 pods is more than the one wanted.
        ([20, 20, 20, 20], 1, 100, 1, 1),
        ([], 2, 100, 2, 2),
    ],
)
def test_replicas_are_proposed_as_the_controller_does(
    values: list[float], missing: int, target: float, current: int, proposed: int
) -> None:
    assert proposed_replicas(values, missing, target, current, missing_high=target) == proposed


def test_a_utilization_counts_pods_that_start_as_whole_on_the_way_down() -> None:
    # (0.2 + 0.2 + 1.0) / 3 / 0.7 = 0.67 of 3 pods.
    assert proposed_replicas([0.2, 0.2], 1, 0.7, 3, missing_high=1.0) == 2
    # At the target they would be (0.2 + 0.2 + 0.7) / 3 / 0.7 = 0.52.
    assert proposed_replicas([0.2, 0.2], 1, 0.7, 3, missing_high=0.7) == 2
    assert proposed_replicas([0.5, 0.5], 1, 0.7, 3, missing_high=1.0) == 3


def test_at_most_double_or_four_more_are_added_in_fifteen_seconds() -> None:
    autoscaler = HorizontalAutoscaler(2, 100)
    assert autoscaler.replicas(0, 50, 2) == 6
    assert autoscaler.replicas(15, 50, 6) == 12
    assert autoscaler.replicas(30, 50, 12) == 24
    assert autoscaler.replicas(45, 50, 24) == 48
    assert autoscaler.replicas(60, 50, 48) == 50


def test_fewer_come_when_nothing_asked_for_more_within_five_minutes() -> None:
    autoscaler = HorizontalAutoscaler(2, 100)
    assert autoscaler.replicas(0, 10, 10) == 10
    counts = [autoscaler.replicas(15 * step, 6 if step == 4 else 3, 10) for step in range(1, 26)]
    # 10 was asked for at 0 s, 6 at 60 s, 3 otherwise.
    assert counts[:20] == [10] * 20
    assert counts[20:24] == [6] * 4
    assert counts[24] == 3


def test_replicas_stay_within_their_bounds() -> None:
    autoscaler = HorizontalAutoscaler(2, 7)
    assert autoscaler.replicas(0, 50, 5) == 7
    assert HorizontalAutoscaler(2, 7).replicas(0, 0, 3) == 2


def test_the_days_are_those_of_the_recipe() -> None:
    assert {name: read_day(name) for name in DAYS} == recipe()
    for name in DAYS:
        day = read_day(name)
        assert len(day) == MINUTES
        assert max(day) == pytest.approx(1.0, abs=0.1)
        assert min(day) > 0


def test_the_rate_between_two_minutes_is_on_a_line() -> None:
    assert rate_at([1.0, 3.0], 30) == 2.0
    assert rate_at([1.0, 3.0], 90) == 2.0


def test_equal_seeds_give_equal_days_and_others_do_not() -> None:
    first, again, other = (rates("bursts", 10, seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("policy", [CPU, ERG, QUEUE.at(0.5)])
def test_equal_seeds_give_equal_runs(policy: Policy) -> None:
    first, again, other = (simulate(SMALL, hill(40), policy, tabulated, seed=seed) for seed in (7, 7, 8))
    assert first.replicas == again.replicas
    assert first.attainment == again.attainment
    assert first.attainment != other.attainment


@pytest.mark.parametrize("policy", [CPU, ERG])
def test_pods_follow_the_load_up_and_down(policy: Policy) -> None:
    run = simulate(SMALL, hill(40), policy, tabulated, seed=1)
    assert run.replicas[0] == LEAST
    assert max(run.replicas) >= 5
    assert run.replicas[-1] <= 3


def test_a_pod_serves_only_after_it_started() -> None:
    served: list[int] = []

    def counting(number: int) -> TabulatedPod:
        served.append(number)
        return tabulated(number)

    steps = START_S // STEP_S
    # Scraped at 15 s, decided at 20 s: at 75 s nobody new serves yet.
    simulate(SMALL, [60.0] * (4 + steps), ERG, counting, seed=1)
    assert len(served) == LEAST
    simulate(SMALL, [60.0] * (5 + steps), ERG, counting, seed=1)
    assert len(served) > 2 * LEAST


def test_pods_that_start_and_drain_are_paid_for() -> None:
    run = simulate(SMALL, hill(40), ERG, tabulated, seed=1)
    assert run.replica_hours == pytest.approx(sum(run.replicas) * STEP_S / 3600)
    falls = [at for at in range(1, len(run.replicas)) if run.replicas[at] < run.replicas[at - 1]]
    assert falls
    assert DRAIN_S >= STEP_S


def test_scale_down_loses_nothing_where_pods_drain_and_something_where_they_do_not() -> None:
    load = [30.0] * 30 + [12.0] * 90
    runs = [simulate(SMALL, load, ERG, scheduled, seed=2, drain=drain, start=6) for drain in (True, False)]
    assert min(runs[0].replicas) < 6
    assert [run.lost == 0 for run in runs] == [True, False]
    # Whatever is offered is answered, refused or lost.
    assert runs[0].offered.sum() > 3000


def test_a_table_does_what_the_real_scheduler_does() -> None:
    table = tabulate(SMALL, requests=1000, seed=1)
    assert table.at(table.in_time[:, 0], 5.0) > 0.98
    assert table.at(table.in_time[:, 0], 20.0) == pytest.approx(0.5, abs=0.05)
    assert table.at(table.busy, 5.0) == pytest.approx(0.5, abs=0.05)
    load = hill(30, minutes=3)
    by_table = simulate(SMALL, load, ERG, lambda number: TabulatedPod(SMALL, number, table), seed=3, start=4)
    by_scheduler = simulate(SMALL, load, ERG, scheduled, seed=3, start=4)
    assert by_table.attainment == pytest.approx(by_scheduler.attainment, abs=0.03)
    assert by_table.replica_hours == pytest.approx(by_scheduler.replica_hours, rel=0.15)


def test_nobody_who_keeps_the_objective_is_below_the_bound() -> None:
    load = hill(20, low=12, minutes=20)
    bound = least_replica_hours(SMALL, TABLE, load, 0.99)
    assert bound > 0
    kept = 0
    for policy in (ERG.at(0.8), ERG, CPU.at(0.5), CPU):
        run = simulate(SMALL, load, policy, tabulated, seed=1, start=5)
        if run.attainment >= 0.99:
            kept += 1
            assert run.replica_hours >= bound
    assert kept


def test_the_bound_of_a_steady_load_is_what_it_takes() -> None:
    # 27 requests a second take three pods of nine; one in a hundred late saves a little less than a pod.
    hours = least_replica_hours(SMALL, TABLE, [27.0] * 720, 0.99)
    assert 2.5 < hours <= 3.0
