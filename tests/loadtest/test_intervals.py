from statistics import NormalDist

import numpy as np
import pytest
from erg_loadtest.intervals import Interval, percentile, proportion, quotient, ratio, t_quantile
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtest.narrow import known


@pytest.mark.parametrize(("degrees", "value"), [(4, 2.776), (9, 2.262), (19, 2.093), (30, 2.042), (120, 1.980)])
def test_t_is_student_s_table(degrees, value):
    assert t_quantile(0.975, degrees) == pytest.approx(value, rel=3e-3)


def test_a_rate_over_equal_blocks_is_the_textbook_interval_of_a_mean():
    found = known(ratio([10, 12, 8, 11, 9], [1.0] * 5))
    error = np.std([10, 12, 8, 11, 9], ddof=1) / np.sqrt(5)
    assert found.value == 10
    assert known(found.high) - 10 == pytest.approx(t_quantile(0.975, 4) * error)
    assert 10 - known(found.low) == pytest.approx(known(found.high) - 10)


def test_what_is_never_below_zero_is_not_bounded_below_it():
    assert known(ratio([0, 0, 0, 0, 9], [1.0] * 5)).low == 0
    assert known(known(ratio([-1, 0, 0, 0, 9], [1.0] * 5)).low) < 0


def test_blocks_in_which_nothing_was_asked_do_not_count():
    assert ratio([1, 2, 3, 2, 1, 0], [1, 1, 1, 1, 1, 0]) == ratio([1, 2, 3, 2, 1], [1, 1, 1, 1, 1])


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_blocks_make_no_interval_and_say_so(count):
    assert "run longer" in str(ratio([1.0] * count, [1.0] * count))
    assert "run longer" in str(proportion([1.0] * count, [1.0] * count))


def test_a_percentile_of_independent_values_is_bounded_by_binomial_ranks():
    count, blocks = 2000, np.arange(2000) // 100
    found = known(percentile(np.arange(1, count + 1), blocks, 50.0))
    assert found.value == 1000
    # Values in order are the worst case for blocks: the interval is far wider than the binomial one.
    binomial = NormalDist().inv_cdf(0.975) * np.sqrt(0.25 / count) * count
    assert known(found.high) - 1000 > 3 * binomial
    mixed = known(percentile(np.arange(1, count + 1), np.arange(count) % 20, 50.0))
    assert known(mixed.high) - 1000 == pytest.approx(binomial, rel=0.1)


def test_a_tail_that_the_run_is_too_short_for_is_not_bounded():
    found = known(percentile(np.arange(100), np.arange(100) % 10, 99.0))
    assert found.high is None
    assert known(found.low) < found.value


def test_all_hits_are_not_taken_for_certainty():
    found = known(proportion([100] * 10, [100] * 10))
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.99 < known(found.low) < 0.996


def test_a_quotient_has_the_reach_of_both():
    found = known(quotient(Interval(value=2.0, low=1.0, high=4.0), Interval(value=1.0, low=1.0, high=1.0)))
    assert (found.value, known(found.low), known(found.high)) == pytest.approx((2.0, 1.0, 4.0))
    both = Interval(value=1.0, low=0.5, high=2.0)
    assert known(known(quotient(both, both)).high) == pytest.approx(2 ** np.sqrt(2))


def test_a_quotient_of_what_is_not_bounded_is_not_bounded_on_that_side():
    found = known(quotient(Interval(value=2.0, low=1.0, high=None), Interval(value=1.0, low=0.9, high=1.1)))
    assert found.high is None
    assert known(found.low) < 2.0
    assert quotient(Interval(value=0.0, low=0.0, high=1.0), Interval(value=1.0, low=1.0, high=1.0)) is None


def covered(make, truth, rounds=300):
    generator = np.random.default_rng(5)
    found = [make(generator) for _ in range(rounds)]
    return np.mean([(low is None or low <= truth) and (high is None or truth <= high) for low, high in found])


def bursts(generator, count=4000):
    """Latencies that depend on each other: each block of 20 requests shares most of its delay."""
    shared = np.repeat(generator.exponential(size=count // 20), 20)
    return shared + 0.1 * generator.exponential(size=count)


def test_intervals_of_requests_that_are_late_together_still_cover_the_truth():
    many = bursts(np.random.default_rng(0), 2_000_000)
    blocks = np.arange(4000) // 200

    def median(generator):
        found = known(percentile(bursts(generator), blocks, 50.0))
        return found.low, found.high

    def mean(generator):
        values = bursts(generator)
        found = known(ratio(np.bincount(blocks, weights=values), np.bincount(blocks)))
        return found.low, found.high

    def within(generator):
        hits = bursts(generator) <= 2.0
        found = known(proportion(np.bincount(blocks, weights=hits), np.bincount(blocks)))
        return found.low, found.high

    assert covered(median, np.percentile(many, 50)) > 0.92
    assert covered(mean, many.mean()) > 0.92
    assert covered(within, np.mean(many <= 2.0)) > 0.92

    def naive(generator):
        values = bursts(generator)
        reach = 1.96 * values.std() / np.sqrt(len(values))
        return values.mean() - reach, values.mean() + reach

    assert covered(naive, many.mean()) < 0.7


def test_two_runs_of_one_server_differ_by_chance_alone_about_one_time_in_twenty():
    blocks = np.arange(4000) // 200

    def compared(generator):
        runs = [
            known(ratio(np.bincount(blocks, weights=bursts(generator)), np.bincount(blocks))) for _ in range(2)
        ]  # fmt: skip
        found = known(quotient(*runs))
        return found.low, found.high

    assert 0.92 < covered(compared, 1.0) < 0.99


@given(
    st.lists(st.floats(0, 1e9), min_size=25, max_size=300),
    st.sampled_from([1.0, 50.0, 90.0, 99.0, 99.9]),
    st.integers(5, 20),
)
def test_a_percentile_lies_within_its_own_bounds_and_is_a_value_that_occurred(values, percent, blocks):
    found = known(percentile(values, np.arange(len(values)) % blocks, percent))
    assert found.value in values
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.high >= found.value


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=5, max_size=30))
def test_a_share_and_its_bounds_stay_within_0_and_1(blocks):
    hits = [hit for hit, _ in blocks]
    totals = [hit + miss for hit, miss in blocks]
    if sum(total > 0 for total in totals) < 5:
        return
    found = known(proportion(hits, totals))
    assert 0 <= known(found.low) <= found.value <= known(found.high) <= 1
