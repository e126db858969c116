from __future__ import annotations

import pytest
from erg_server.autoscaling.margin import FIRST, LEAST, MEMORY_S, MOST, Margin
from hypothesis import given
from hypothesis import strategies as st


def test_one_late_request_in_a_hundred_leaves_it_as_it_is() -> None:
    margin = Margin()
    for _ in range(240):
        margin.observe(15, 990, 10)
    assert margin.factor == pytest.approx(FIRST)


def test_it_shrinks_while_nothing_is_late_and_grows_with_what_is() -> None:
    calm, busy = Margin(), Margin()
    for _ in range(60):
        calm.observe(15, 1000, 0)
        busy.observe(15, 980, 20)
    assert calm.factor == pytest.approx(FIRST * 2.718281828 ** (-900 / MEMORY_S))
    assert busy.factor == pytest.approx(FIRST * 2.718281828 ** (900 / MEMORY_S))


def test_a_server_without_requests_learns_nothing() -> None:
    margin = Margin()
    margin.observe(3600, 0, 0)
    assert margin.factor == FIRST


def test_what_a_bad_minute_taught_does_not_depend_on_how_many_requests_there_are() -> None:
    factors = []
    for scale in (1, 1000):
        margin = Margin()
        for look in range(40):
            margin.observe(15, (10 if look % 10 else 5) * scale, (0 if look % 10 else 5) * scale)
        factors.append(margin.factor)
    assert factors[0] == pytest.approx(factors[1])


@given(st.lists(st.tuples(st.floats(0.001, 1e6), st.integers(0, 10**9), st.integers(0, 10**9)), max_size=50))
def test_it_stays_within_its_bounds(looks: list[tuple[float, int, int]]) -> None:
    margin = Margin()
    for seconds, in_time, late in looks:
        margin.observe(seconds, in_time, late)
        assert LEAST - 1e-9 <= margin.factor <= MOST + 1e-9
