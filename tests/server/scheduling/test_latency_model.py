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
