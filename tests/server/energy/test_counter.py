"""A counter that wraps, is reset and misses readings, as one that only grows."""

from __future__ import annotations

import pytest
from erg_server.energy.counter import EnergyCounter
from hypothesis import given
from hypothesis import strategies as st

S = 1_000_000_000


def test_the_first_reading_is_where_it_starts() -> None:
    counter = EnergyCounter("package-0")
    assert counter.observe(0, 123_456) == 0
    assert counter.observe(S, 123_556) == 100


def test_a_wrap_goes_on_at_zero() -> None:
    counter = EnergyCounter("package-0", range_uj=1000)
    counter.observe(0, 900)
    assert counter.observe(S, 50) == 150
    assert counter.resets == 0


@given(st.lists(st.integers(0, 999), min_size=1, max_size=50))
def test_any_number_of_wraps_counts_every_step(steps: list[int]) -> None:
    counter = EnergyCounter("package-0", range_uj=1000)
    counter.observe(0, 0)
    raw = 0
    for number, step in enumerate(steps, 1):
        raw = (raw + step) % 1000
        total = counter.observe(number * S, raw)
    assert total == sum(steps)


def test_one_without_a_range_that_goes_back_counts_anew(caplog: pytest.LogCaptureFixture) -> None:
    counter = EnergyCounter("gpu0")
    counter.observe(0, 500)
    counter.observe(S, 800)
    assert counter.observe(2 * S, 10) == 300
    assert counter.observe(3 * S, 30) == 320
    assert counter.resets == 1
    assert "gpu0 went back from 800 to 10" in caplog.text


def test_a_wrap_that_no_package_could_have_filled_is_a_reset() -> None:
    counter = EnergyCounter("package-0", range_uj=262_143_328_850)
    counter.observe(0, 1_000_000)
    assert counter.observe(S // 10, 5_000) == 0
    assert counter.observe(S, 6_000) == 1_000
    assert counter.resets == 1


@given(st.lists(st.tuples(st.integers(0, 10 * S), st.integers(0, 1 << 40)), max_size=40), st.integers(0, 1 << 40))
def test_nothing_that_is_read_ever_makes_it_go_back(readings: list[tuple[int, int]], range_uj: int) -> None:
    counter, now_ns, last = EnergyCounter("any", range_uj), 0, 0
    for elapsed_ns, raw in readings:
        now_ns += elapsed_ns
        total = counter.observe(now_ns, raw)
        assert total >= last
        last = total
