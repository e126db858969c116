from __future__ import annotations

import random

import pytest
from erg_server.scheduling.latency_curve import CurveSnapshot
from erg_server.scheduling.latency_model import LatencyModel
from hypothesis import given
from hypothesis import strategies as st


def test_an_unmeasured_shape_is_predicted_in_proportion_to_its_rows() -> None:
    model = LatencyModel()
    assert model.predict_ns("a", 4) == 4 * model.predict_ns("a", 1)


def test_a_measured_size_is_predicted_exactly_and_others_on_the_line_between() -> None:
    model = LatencyModel()
    model.observe("a", 2, 200)
    model.observe("a", 6, 1000)
    assert model.predict_ns("a", 2) == 200
    assert model.predict_ns("a", 4) == 600
    assert model.predict_ns("a", 12) == 2000
    assert model.predict_ns("a", 1) == 100


def test_the_average_follows_a_change_within_twenty_batches() -> None:
    model = LatencyModel()
    model.observe("a", 1, 100)
    for _ in range(20):
        model.observe("a", 1, 200)
    assert 195 < model.predict_ns("a", 1) <= 200


@given(st.lists(st.integers(0, 10_000), max_size=600))
def test_memory_is_bounded_whatever_shapes_callers_send(keys: list[int]) -> None:
    model = LatencyModel()
    for key in keys:
        model.observe(key, 1, 1)
    assert sum(model.known(key) for key in set(keys)) <= 256


def test_the_high_prediction_is_exceeded_by_about_one_batch_in_a_hundred() -> None:
    rng = random.Random(1)
    model = LatencyModel()
    late = 0
    for number in range(20_000):
        duration = rng.gauss(1e6, 1e5)
        if number >= 2000:
            late += duration > model.predict_high_ns("a", 4)
        model.observe("a", 4, round(duration))
    assert 0.004 < late / 18_000 < 0.02


def test_a_short_batch_that_is_often_disturbed_does_not_make_a_long_one_look_so() -> None:
    rng = random.Random(1)
    model = LatencyModel()
    model.restore({"a": CurveSnapshot(means_ns={1: 100.0, 8: 800.0}, spread=1.0)})
    for _ in range(2000):
        model.observe("a", 1, 300 if rng.random() < 0.05 else 100)
    assert model.predict_high_ns("a", 1) > 200
    added = model.predict_high_ns("a", 1) - model.predict_ns("a", 1)
    assert model.predict_high_ns("a", 8) == pytest.approx(800 + added), "a disturbance takes as long"


@given(st.lists(st.tuples(st.integers(1, 16), st.integers(1, 10_000)), min_size=1, max_size=60))
def test_fewer_rows_are_never_predicted_to_take_longer(batches: list[tuple[int, int]]) -> None:
    model = LatencyModel()
    for rows, duration_ns in batches:
        model.observe("a", rows, duration_ns)
    seen = sorted({rows for rows, _ in batches})
    predicted = [model.predict_ns("a", rows) for rows in range(1, seen[-1] + 1)]
    assert predicted == sorted(predicted)


def test_the_high_prediction_comes_down_to_the_mean_where_nothing_varies() -> None:
    model = LatencyModel()
    for _ in range(400):
        model.observe("a", 4, 1000)
    assert model.predict_high_ns("a", 4) == model.predict_ns("a", 4) == 1000


def learnt(durations: dict[int, int], times: int = 3) -> LatencyModel:
    model = LatencyModel()
    for rows, duration_ns in durations.items():
        for _ in range(times):
            model.observe("a", rows, duration_ns)
    return model


def test_no_batch_is_larger_than_the_one_whose_rows_cost_least() -> None:
    assert learnt({1: 100, 4: 240, 8: 400, 16: 1600}).best_rows("a", 32) == 8


def test_a_size_that_was_not_tried_is_tried_in_steps() -> None:
    assert learnt({1: 100, 4: 240}).best_rows("a", 32) == 8
    assert learnt({1: 100, 4: 240}).best_rows("a", 6) == 6


def test_one_slow_batch_does_not_condemn_its_size() -> None:
    assert learnt({1: 100, 8: 400}).best_rows("a", 64) == 16
    model = learnt({1: 100, 8: 400})
    model.observe("a", 16, 10_000)
    assert model.best_rows("a", 64) == 16


def test_rows_within_a_budget_are_those_of_the_high_prediction() -> None:
    model = LatencyModel()
    model.restore({"a": CurveSnapshot(means_ns={1: 100.0, 11: 1100.0}, spread=2.0)})
    assert model.rows_within("a", 2000, 32) == 10
    assert model.rows_within("a", 2000, 4) == 4
    assert model.rows_within("a", 199, 32) == 0


def test_what_was_restored_does_not_overrule_what_was_observed() -> None:
    model = LatencyModel()
    model.observe("a", 1, 500)
    model.restore({"a": CurveSnapshot(means_ns={1: 100.0, 2: 700.0}, spread=1.5), "b": CurveSnapshot(means_ns={})})
    assert (model.predict_ns("a", 1), model.predict_ns("a", 2)) == (500, 700)
    assert not model.known("b")


def test_a_batch_whose_rows_save_nothing_is_not_formed() -> None:
    assert learnt({1: 100, 2: 199, 4: 398, 8: 800}).best_rows("a", 32) == 1
    assert learnt({1: 100, 2: 160, 4: 318, 8: 640}).best_rows("a", 32) == 2


def test_a_size_whose_first_batch_was_a_compilation_is_formed_again() -> None:
    model = LatencyModel()
    for rows, durations in {1: (400, 100, 100), 2: (900, 150, 150), 4: (1600, 260, 250)}.items():
        for duration_ns in durations:
            model.observe("a", rows, duration_ns)
    assert model.predict_ns("a", 2) == 150
    assert model.best_rows("a", 64) == 8


def test_a_size_that_is_seen_keeps_its_own_time() -> None:
    model = LatencyModel()
    for _ in range(30):
        model.observe("a", 1, 100)
        model.observe("a", 4, 300)
    for _ in range(40):
        model.observe("a", 1, 50)
    assert model.predict_ns("a", 4) == pytest.approx(300)


def test_no_batch_takes_more_than_the_budget() -> None:
    model = LatencyModel(budget_ns=500)
    model.restore({"a": CurveSnapshot(means_ns={1: 100.0, 8: 660.0}, spread=1.0)})
    assert model.best_rows("a", 8) == 6
    slow = LatencyModel(budget_ns=50)
    slow.restore({"a": CurveSnapshot(means_ns={1: 100.0, 8: 800.0}, spread=1.0)})
    assert slow.best_rows("a", 8) == 1
