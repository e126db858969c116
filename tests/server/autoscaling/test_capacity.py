from __future__ import annotations

import math
from random import Random

import pytest
from erg_server.autoscaling.capacity import WITHOUT_OBJECTIVE, Demand, servers_needed
from erg_server.scheduling.latency_curve import CurveSnapshot, LatencyCurve
from erg_server.simulation.arrivals import poisson
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import SimulatedModel, Simulation, simulated_spec
from hypothesis import given, settings
from hypothesis import strategies as st

MS = 1_000_000
TWO = frozenset({"cpu0", "cpu1"})


def curve(fixed_ms: float, row_ms: float, most: int) -> LatencyCurve:
    found = LatencyCurve()
    cost = LinearCost(fixed_ms * MS, row_ms * MS)
    found.restore(
        CurveSnapshot(means_ns={rows: cost.mean_ns(rows) for rows in (1, 2, 4, 8, 16, 32, 64) if rows <= most})
    )
    return found


def demand(
    rows_per_s: float,
    *,
    fixed_ms: float = 0,
    row_ms: float = 10,
    most: int = 1,
    objective_ms: float = 0,
    workers: frozenset[str] = TWO,
    margin: float = 1.0,
) -> Demand:
    return Demand(
        rows_per_s=rows_per_s,
        latencies=curve(fixed_ms, row_ms, most),
        objective_ns=round(objective_ms * MS),
        most_rows=most,
        workers=workers,
        margin=margin,
    )


def test_a_model_without_an_objective_counts_by_utilization() -> None:
    # 10 ms a row on two devices: 200 rows a second keep both busy.
    assert servers_needed([demand(100)]) == pytest.approx(100 / 200 / WITHOUT_OBJECTIVE)


def test_batches_that_pay_are_counted_with() -> None:
    assert servers_needed([demand(100, fixed_ms=10, row_ms=1, most=32)]) == pytest.approx(
        100 / (2 * 32 / 0.042) / WITHOUT_OBJECTIVE
    )


def test_an_objective_that_leaves_no_time_for_large_batches_takes_more_servers() -> None:
    needs = [
        servers_needed([demand(100, fixed_ms=10, row_ms=1, most=32, objective_ms=objective_ms)])
        for objective_ms in (30, 50, 100, 1000)
    ]
    assert needs == sorted(needs, reverse=True)
    assert needs[0] > 2 * needs[-1]


def test_an_objective_that_nobody_can_keep_asks_for_no_server_that_would_not_help() -> None:
    assert servers_needed([demand(100, objective_ms=9)]) == servers_needed([demand(100)])


def test_no_load_needs_nothing() -> None:
    assert servers_needed([]) == 0
    assert servers_needed([demand(0.0, objective_ms=100)]) == 0


def test_a_margin_multiplies_the_need() -> None:
    assert servers_needed([demand(50, objective_ms=100, margin=1.25)]) == pytest.approx(
        1.25 * servers_needed([demand(50, objective_ms=100)])
    )


def test_models_that_share_devices_add_up_and_the_tightest_decides_what_is_used() -> None:
    tight, wide = demand(40, objective_ms=40), demand(40, objective_ms=1000)
    both = servers_needed([tight, wide])
    assert both == pytest.approx(2 * servers_needed([tight]))
    assert both > servers_needed([tight]) + servers_needed([wide])


def test_a_model_with_fewer_requests_than_may_be_late_does_not_decide() -> None:
    rare, wide = demand(0.3, objective_ms=30), demand(100, objective_ms=1000)
    assert servers_needed([rare, wide]) == pytest.approx(servers_needed([wide]), rel=0.01)


def test_models_on_devices_of_their_own_do_not_add_up() -> None:
    left = demand(50, workers=frozenset({"gpu0"}))
    right = demand(20, workers=frozenset({"gpu1"}))
    assert servers_needed([left, right]) == servers_needed([left])


def test_a_model_bound_to_one_device_is_found_beside_one_that_may_use_all() -> None:
    bound, free = demand(50, workers=frozenset({"cpu0"})), demand(50)
    assert servers_needed([bound]) == pytest.approx(0.5 / WITHOUT_OBJECTIVE)
    # 1.0 of two devices in all, and no more than 0.5 of the one.
    assert servers_needed([bound, free]) == pytest.approx(0.5 / WITHOUT_OBJECTIVE)


demands = st.builds(
    demand,
    st.floats(0, 1e6),
    fixed_ms=st.floats(0, 1000),
    row_ms=st.floats(0.001, 1000),
    most=st.sampled_from([1, 2, 3, 8, 64]),
    objective_ms=st.one_of(st.just(0.0), st.floats(0.01, 1e5)),
    workers=st.frozensets(st.sampled_from(["gpu0", "gpu1", "gpu2", "gpu3"]), max_size=4),
    margin=st.floats(1, 2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(demands, max_size=4), st.floats(1, 100))
def test_the_need_is_finite_and_proportional_to_the_load(loads: list[Demand], factor: float) -> None:
    def times(scale: float) -> float:
        return servers_needed(
            [
                Demand(
                    rows_per_s=each.rows_per_s * scale,
                    latencies=each.latencies,
                    objective_ns=each.objective_ns,
                    most_rows=each.most_rows,
                    workers=each.workers,
                    margin=each.margin,
                )
                for each in loads
            ]
        )

    need = times(1.0)
    assert math.isfinite(need)
    assert need >= 0
    # So k servers that share a load equally need in all what one would say that had all of it.
    assert times(factor) == pytest.approx(factor * need)


@pytest.mark.parametrize(
    ("fixed_ms", "row_ms", "most", "objective_ms", "devices"),
    [(0, 10, 1, 50, 1), (1, 8, 16, 90, 2), (20, 0.5, 64, 100, 1), (10, 2, 32, 60, 8)],
)
def test_the_real_scheduler_carries_what_a_server_is_said_to_carry_and_not_much_more(
    fixed_ms: float, row_ms: float, most: int, objective_ms: float, devices: int
) -> None:
    workers = frozenset(f"device{number}" for number in range(devices))
    one = demand(1, fixed_ms=fixed_ms, row_ms=row_ms, most=most, objective_ms=objective_ms, workers=workers)
    carried = 1 / servers_needed([one])

    def attainment(rate_per_s: float) -> float:
        model = SimulatedModel(
            spec=simulated_spec("m", max_rows=most, objective_ns=round(objective_ms * MS)),
            cost=LinearCost(fixed_ms * MS, row_ms * MS, jitter=0.05),
            arrivals=poisson(rate_per_s, Random(5)),
            promise_ns=round(objective_ms * MS),
        )
        simulation = Simulation([model], devices=devices, seed=5, warm_up_ns=500 * MS)
        return simulation.run(0.5 + 5000 / rate_per_s)[0].attainment

    assert attainment(0.93 * carried) >= 0.99
    assert attainment(1.15 * carried) < 0.99
