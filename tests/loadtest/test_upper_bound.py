"""The bound of the scheduling benchmark: if it were ever below what a policy reaches, it would be none."""

from __future__ import annotations

import numpy as np
import pytest
from bench.triton_policy import TritonPolicy
from bench.upper_bound import can_attain, least_costs, least_undone
from erg_server.simulation.arrivals import trace
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import SimulatedModel, Simulation, simulated_spec
from hypothesis import given, settings
from hypothesis import strategies as st

MS = 1_000_000


def model(
    *at_ms: float, fixed_ms: float = 10, row_ms: float = 5, max_rows: int = 4, told: bool = True
) -> SimulatedModel:
    """Answers are promised within 50 ms."""
    return SimulatedModel(
        spec=simulated_spec("m", max_rows=max_rows, objective_ns=50 * MS if told else 0),
        cost=LinearCost(fixed_ms * MS, row_ms * MS),
        arrivals=trace(each / 1e3 for each in at_ms),
        promise_ns=50 * MS,
    )


def costs_ms(*at_ms: float, max_rows: int = 4) -> list[float]:
    arrivals_ns = np.array(at_ms, dtype=np.float64) * MS
    return [float(each) / MS for each in least_costs(model(max_rows=max_rows), arrivals_ns)]


def attainable(*models: SimulatedModel, devices: int = 1, attainment: float = 1.0) -> bool:
    return can_attain(models, devices=devices, duration_s=20, attainment=attainment)


def test_a_request_costs_its_part_of_the_largest_batch_it_could_be_in_time_with() -> None:
    # Two rows take 20 ms, so that those of one batch come within 30.
    assert costs_ms(0, 30, 100) == [10, 10, 15]
    assert costs_ms(0, 31, 100) == [15, 15, 15]
    assert costs_ms(0, 0, 0, 0, 0) == [7.5] * 5
    assert costs_ms(0, 0, max_rows=1) == [15, 15]


def test_what_is_late_even_alone_cannot_be_in_time() -> None:
    assert not attainable(model(0, fixed_ms=60))
    assert attainable(model(0, 500, fixed_ms=60), attainment=0.0)


def test_work_is_undone_where_a_window_holds_more_than_the_devices_do_in_it() -> None:
    comes, dues, costs = np.array([0.0, 0.0, 5.0]), np.array([10.0, 10.0, 100.0]), np.array([8.0, 8.0, 20.0])
    assert least_undone(comes, dues, costs, 1) == 6
    assert least_undone(comes, dues, costs, 2) == 0


def test_the_earliest_deadline_goes_before_one_that_came_earlier() -> None:
    assert least_undone(np.array([0.0, 2.0]), np.array([30.0, 12.0]), np.array([20.0, 10.0]), 1) == 0


def test_three_full_batches_at_once_need_two_devices_in_fifty_milliseconds() -> None:
    # A full batch of four takes 30 ms: one device does 50 of their 90 ms in time.
    burst = [0.0] * 12
    assert not attainable(model(*burst))
    assert attainable(model(*burst), devices=2)


def test_what_need_not_be_answered_may_be_left_out() -> None:
    # Eight at once are 60 ms of work, of which 10 are undone: two requests of 7.5 ms. The others come in fours.
    load = [0.0] * 8 + [100.0 * (1 + each // 4) for each in range(92)]
    assert not attainable(model(*load))
    assert not attainable(model(*load), attainment=0.99)
    assert attainable(model(*load), attainment=0.98)


def test_what_promises_nothing_has_no_bound() -> None:
    free = SimulatedModel(spec=simulated_spec("m", max_rows=1), cost=LinearCost(1.0, 0.0), arrivals=trace([0]))
    with pytest.raises(ValueError, match="promises no latency"):
        attainable(free)


ARRIVALS_MS = st.lists(st.integers(0, 300), min_size=1, max_size=25)
LOAD = st.lists(
    st.tuples(ARRIVALS_MS, st.integers(1, 20), st.integers(1, 10), st.integers(1, 8)), min_size=1, max_size=3
)


@settings(max_examples=150, deadline=None)
@given(load=LOAD, devices=st.integers(1, 3), delay_ms=st.integers(0, 20), serial=st.booleans())
def test_no_policy_reaches_more_than_the_bound(
    load: list[tuple[list[int], int, int, int]], devices: int, delay_ms: int, serial: bool
) -> None:
    def models(told: bool = True) -> list[SimulatedModel]:
        return [model(*at_ms, fixed_ms=fixed, row_ms=row, max_rows=rows, told=told) for at_ms, fixed, row, rows in load]

    erg = Simulation(models(), devices=devices).run(10)
    triton = TritonPolicy(models(told=False), devices=devices, delay_ns=delay_ms * MS, serial=serial).run(10)
    for outcomes in (erg, triton):
        reached = min(outcome.attainment for outcome in outcomes)
        assert attainable(*models(), devices=devices, attainment=reached)
