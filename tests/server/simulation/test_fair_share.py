"""A model's burst is not another's: what each gets of the devices when they cannot have all that they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from erg_server.simulation.arrivals import poisson
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import Outcome, SimulatedModel, Simulation, simulated_spec

MS = 1_000_000
SECONDS = 10.0
CAPACITY_PER_S = 2 / 0.010
"""Of two devices, whose rows cost 10 ms each, as on a CPU: batches save nothing."""


def model(
    name: str, rate_per_s: float, *, objective_ms: int = 100, weight: float = 1.0, seed: int = 1
) -> SimulatedModel:
    spec = simulated_spec(name, max_rows=8, objective_ns=objective_ms * MS)
    arrivals: Iterator[int] = poisson(rate_per_s, Random(seed))
    return SimulatedModel(
        spec=replace(spec, weight=weight),
        cost=LinearCost(0, 10 * MS, jitter=0.05),
        arrivals=arrivals,
        promise_ns=(objective_ms or 100) * MS,
    )


def run(*models: SimulatedModel) -> list[Outcome]:
    return Simulation(list(models), devices=2, warm_up_ns=1000 * MS).run(SECONDS)


@pytest.mark.parametrize("objective_ms", [100, 50])
def test_a_quiet_model_keeps_its_objective_while_another_is_in_burst(objective_ms: int) -> None:
    quiet, burst = run(
        model("quiet", 0.1 * CAPACITY_PER_S, objective_ms=objective_ms, seed=2),
        model("burst", 3 * CAPACITY_PER_S, objective_ms=100),
    )
    assert quiet.attainment >= 0.99
    assert burst.in_time / SECONDS >= 0.75 * CAPACITY_PER_S, "what the quiet one leaves is used"


def test_a_quiet_model_that_waits_for_a_second_row_leaves_time_for_the_burst_before_it() -> None:
    # MiniLM beside EfficientNet-lite0 on two cores, as measured: the burst's batches take half of its objective.
    def quiet() -> SimulatedModel:
        spec = simulated_spec("quiet", max_rows=32, objective_ns=30 * MS)
        cost = LinearCost(1.1 * MS, 2.05 * MS, jitter=0.1)
        return SimulatedModel(spec=spec, cost=cost, arrivals=poisson(48, Random(2)), promise_ns=30 * MS)

    spec = simulated_spec("burst", max_rows=8, objective_ns=49 * MS)
    cost = LinearCost(1.2 * MS, 4.9 * MS, jitter=0.1)
    burst = SimulatedModel(spec=spec, cost=cost, arrivals=poisson(1000, Random(3)), promise_ns=49 * MS)
    beside, _ = run(quiet(), burst)
    assert beside.attainment >= 0.97


def test_a_quiet_model_waits_for_a_batch_or_two_and_not_for_the_other_ones_queue() -> None:
    alone, (beside, _) = (
        run(model("quiet", 0.1 * CAPACITY_PER_S, seed=2))[0],
        run(model("quiet", 0.1 * CAPACITY_PER_S, seed=2), model("burst", 3 * CAPACITY_PER_S)),
    )
    # The other's batches are as short as pays, and none of them is staged before it must be.
    assert beside.quantile_ns(0.9) < alone.quantile_ns(0.9) + 20 * MS


def test_without_objectives_a_backlog_does_not_go_before_a_fresh_request() -> None:
    quiet, burst = run(
        model("quiet", 0.1 * CAPACITY_PER_S, objective_ms=0, seed=2), model("burst", 2 * CAPACITY_PER_S, objective_ms=0)
    )
    assert quiet.quantile_ns(0.99) < 200 * MS
    assert burst.quantile_ns(0.5) > 1000 * MS


def test_models_in_burst_share_the_devices_by_weight() -> None:
    light, heavy = run(
        model("light", 3 * CAPACITY_PER_S, seed=2),
        model("heavy", 3 * CAPACITY_PER_S, weight=3.0),
    )
    assert 2 <= heavy.in_time / light.in_time <= 4.5
    assert (light.in_time + heavy.in_time) / SECONDS >= 0.8 * CAPACITY_PER_S


def test_without_objectives_turns_come_by_weight() -> None:
    light, heavy = run(
        model("light", 0.7 * CAPACITY_PER_S, objective_ms=0, seed=2),
        model("heavy", 0.7 * CAPACITY_PER_S, objective_ms=0, weight=3.0),
    )
    # A weight of three covers what one asks for, and that of one leaves the other short.
    assert heavy.quantile_ns(0.5) < 200 * MS
    assert light.quantile_ns(0.5) > 1000 * MS
