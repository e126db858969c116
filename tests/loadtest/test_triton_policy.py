"""The rival of the scheduling benchmark, by hand: a fault in it would flatter Erg."""

from __future__ import annotations

import pytest
from bench.triton_policy import TritonPolicy
from erg_server.simulation.arrivals import trace
from erg_server.simulation.cost import LinearCost
from erg_server.simulation.simulation import Outcome, SimulatedModel, simulated_spec

MS = 1_000_000


def model(*at_ms: float, max_rows: int = 8, promise_ms: int = 50) -> SimulatedModel:
    """Batches of 10 ms, whatever they hold."""
    return SimulatedModel(
        spec=simulated_spec("m", max_rows=max_rows),
        cost=LinearCost(10.0 * MS, 0.0),
        arrivals=trace(each / 1e3 for each in at_ms),
        promise_ns=promise_ms * MS,
    )


def run(
    *models: SimulatedModel, devices: int = 1, delay_ms: int = 0, serial: bool = False, warm_up_ms: int = 0
) -> list[Outcome]:
    delay_ns, warm_up_ns = delay_ms * MS, warm_up_ms * MS
    return TritonPolicy(models, devices=devices, delay_ns=delay_ns, serial=serial, warm_up_ns=warm_up_ns).run(1.0)


def latencies_ms(outcome: Outcome) -> list[float]:
    return [each / MS for each in outcome.latencies_ns]


def test_a_batch_goes_when_its_oldest_has_waited_for_the_delay() -> None:
    (outcome,) = run(model(0, 1, 100), delay_ms=4)
    assert latencies_ms(outcome) == [14, 13, 14]


def test_a_full_batch_goes_at_once() -> None:
    (outcome,) = run(model(0, 1, max_rows=2), delay_ms=100)
    assert latencies_ms(outcome) == [11, 10]


def test_what_comes_while_its_instance_runs_is_one_batch_after_it() -> None:
    (outcome,) = run(model(0, 1, 2))
    assert latencies_ms(outcome) == [10, 19, 18]


def test_every_device_has_an_instance() -> None:
    (outcome,) = run(model(0, 1, 2), devices=2)
    assert latencies_ms(outcome) == [10, 10, 18]


@pytest.mark.parametrize(("serial", "first_ms", "second_ms"), [(True, [10, 19], [28]), (False, [10, 29], [18])])
def test_a_device_takes_the_oldest_head_or_what_was_queued_on_it(
    serial: bool, first_ms: list[float], second_ms: list[float]
) -> None:
    first, second = run(model(0, 1), model(2), serial=serial)
    assert (latencies_ms(first), latencies_ms(second)) == (first_ms, second_ms)


def test_what_is_late_is_counted_so_and_what_came_to_warm_up_is_not_counted() -> None:
    (outcome,) = run(model(0, 20, 21, promise_ms=15), warm_up_ms=10)
    assert (outcome.offered, outcome.in_time, outcome.late) == (2, 1, 1)
