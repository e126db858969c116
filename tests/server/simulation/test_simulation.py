from __future__ import annotations

from random import Random
from typing import Any

import pytest
from erg_server.clock import ManualClock
from erg_server.simulation.arrivals import poisson, trace
from erg_server.simulation.cost import LinearCost, MeasuredCost, sampler
from erg_server.simulation.simulation import Outcome, SimulatedModel, Simulation, simulated_spec
from erg_server.simulation.virtual_time import VirtualTimers

MS = 1_000_000


def model(rate_per_s: float = 100.0, **changes: Any) -> SimulatedModel:
    values: dict[str, Any] = {
        "spec": simulated_spec("m", max_rows=8, objective_ns=50 * MS),
        "cost": LinearCost(5 * MS, 1 * MS, jitter=0.1),
        "arrivals": poisson(rate_per_s, Random(1)),
        "promise_ns": 50 * MS,
    }
    return SimulatedModel(**values | changes)


def run(rate_per_s: float, devices: int = 2, seconds: float = 5.0) -> Outcome:
    return Simulation([model(rate_per_s)], devices=devices).run(seconds)[0]


def test_equal_seeds_give_equal_outcomes() -> None:
    assert run(300) == run(300)


def test_every_request_has_one_outcome() -> None:
    for rate in (50, 800, 3000):
        outcome = run(rate, seconds=2)
        assert outcome.offered == outcome.in_time + outcome.late + outcome.refused + outcome.dropped
        assert outcome.offered == pytest.approx(2 * rate, rel=0.2)


def test_under_three_times_the_capacity_goodput_stays_near_capacity() -> None:
    capacity = 2 * 8 / 0.013
    outcome = run(3 * capacity)
    assert outcome.in_time / 5 >= 0.85 * capacity
    assert outcome.late + outcome.dropped < 0.03 * (outcome.offered - outcome.refused), "the rest is told on arrival"


def test_in_overload_batches_stay_as_large_as_pays() -> None:
    # A row alone takes 3.15 ms and one of eight 2.2 ms, as MiniLM's: what is admitted must leave time for those eight.
    spec = simulated_spec("m", max_rows=32, objective_ns=30 * MS)
    capacity = 2 * 8 / 0.01757
    load = model(
        spec=spec,
        cost=LinearCost(1_090_000, 2_060_000, jitter=0.05),
        arrivals=poisson(3 * capacity, Random(1)),
        promise_ns=30 * MS,
    )
    outcome = Simulation([load], devices=2, warm_up_ns=1000 * MS).run(4)[0]
    assert outcome.in_time / 3 >= 0.95 * capacity


def test_a_model_runs_on_its_devices_only() -> None:
    simulation = Simulation([model(devices={1}), model(devices={0})], devices=3)
    simulation.run(1)
    assert [worker.busy_ns > 0 for worker in simulation.workers] == [True, True, False]


def test_requests_of_the_warm_up_are_not_counted() -> None:
    arrivals = trace([0.1, 0.2, 2.0])
    (outcome,) = Simulation([model(arrivals=arrivals)], devices=1, warm_up_ns=1_000_000_000).run(5)
    assert (outcome.offered, outcome.in_time) == (1, 1)


def test_quantiles_are_of_the_answers() -> None:
    assert Outcome(latencies_ns=list(range(100, 0, -1))).quantile_ns(0.99) == 100
    assert Outcome().quantile_ns(0.5) == 0


def test_a_measured_cost_is_read_between_its_sizes() -> None:
    cost = MeasuredCost({1: 100.0, 3: 300.0})
    assert sampler(cost, 4, Random(1))(2) == 200


def test_timers_run_in_order_and_a_cancelled_one_never() -> None:
    clock = ManualClock()
    timers = VirtualTimers(clock)
    ran: list[tuple[int, str]] = []
    timers.call_later(2e-9, lambda: ran.append((clock.now_ns(), "second")))
    timers.call_later(1e-9, lambda: ran.append((clock.now_ns(), "first")))
    timers.call_later(1e-9, lambda: ran.append((clock.now_ns(), "never"))).cancel()
    timers.call_soon(lambda: ran.append((clock.now_ns(), "now")))
    timers.run()
    assert ran == [(0, "now"), (1, "first"), (2, "second")]


def test_timers_without_an_end_are_found_out() -> None:
    timers = VirtualTimers(ManualClock())

    def again() -> None:
        timers.call_later(0, again)

    again()
    with pytest.raises(RuntimeError, match="does not come to rest"):
        timers.run(max_timers=100)
