from __future__ import annotations

from random import Random

import pytest
from erg_server.autoscaling.arrival_rate import WINDOW_NS, ArrivalRate
from hypothesis import given
from hypothesis import strategies as st

S = 1_000_000_000


def test_two_thirds_of_a_step_are_seen_after_the_window() -> None:
    rate = ArrivalRate(0)
    for second in range(1, WINDOW_NS // S + 1):
        rate.observe(second * S, 100)
    assert rate.rows_per_s == pytest.approx(63.2, abs=0.1)


def test_a_load_that_ends_is_forgotten() -> None:
    rate = ArrivalRate(0)
    rate.observe(60 * S, 6000)
    rate.observe(60 * S + 10 * WINDOW_NS, 0)
    assert 0 <= rate.rows_per_s < 0.01


def test_looks_at_any_distance_find_the_same_steady_rate() -> None:
    seldom, often = ArrivalRate(0), ArrivalRate(0)
    for minute in range(1, 6):
        seldom.observe(minute * 60 * S, 600)
    for second in range(1, 301):
        often.observe(second * S, 10)
    assert seldom.rows_per_s == pytest.approx(often.rows_per_s, rel=0.001)


def test_a_load_that_moves_to_new_servers_is_neither_counted_twice_nor_lost() -> None:
    # Two servers share 100 rows a second; from second 100 on two more take half of it.
    servers = [ArrivalRate(0) for _ in range(4)]
    totals = []
    for second in range(1, 301):
        shares = (50, 50, 0, 0) if second <= 100 else (25, 25, 25, 25)
        for server, rows in zip(servers, shares, strict=True):
            server.observe(second * S, rows)
        totals.append(sum(server.rows_per_s for server in servers))
    assert totals[99:] == pytest.approx([100] * 201, rel=1e-3)


def test_a_count_that_falls_is_no_negative_rate() -> None:
    rate = ArrivalRate(0)
    rate.observe(S, -5)
    assert rate.rows_per_s == 0


def test_time_that_stands_still_is_an_error_of_the_caller() -> None:
    rate = ArrivalRate(S)
    with pytest.raises(ValueError, match="0 ns later"):
        rate.observe(S, 1)


@given(st.integers(1, 1000), st.integers(0, 2**32))
def test_noise_is_that_of_a_count_over_twice_the_window(rows_per_s: int, seed: int) -> None:
    rng = Random(seed)
    rate = ArrivalRate(0)
    for second in range(1, 121):
        # The sum of many independent callers.
        rate.observe(second * S, max(0.0, rng.gauss(rows_per_s, rows_per_s**0.5)))
    deviation = (rows_per_s / (2 * WINDOW_NS / S)) ** 0.5
    assert abs(rate.rows_per_s - rows_per_s) < 6 * deviation + 0.5
