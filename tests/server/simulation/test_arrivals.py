from __future__ import annotations

import itertools
from random import Random

import pytest
from erg_server.simulation.arrivals import bursts, merge, poisson, trace

SECOND = 1_000_000_000


def within(stream, seconds: int) -> list[int]:
    return list(itertools.takewhile(lambda at_ns: at_ns < seconds * SECOND, stream))


def test_poisson_arrivals_have_the_rate_and_the_variance() -> None:
    times = within(poisson(100, Random(1)), 200)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    counts = [len(list(group)) for _, group in itertools.groupby(times, key=lambda at_ns: at_ns // SECOND)]
    mean = sum(counts) / len(counts)
    assert sum((count - mean) ** 2 for count in counts) / len(counts) == pytest.approx(mean, rel=0.35)


def test_bursts_have_the_mean_rate_and_more_variance() -> None:
    times = within(bursts(100, Random(2), peak=5, share=0.1, burst_s=0.5), 1000)
    assert len(times) == pytest.approx(100_000, rel=0.1)
    counts = [len(list(group)) for _, group in itertools.groupby(times, key=lambda at_ns: at_ns // SECOND)]
    mean = sum(counts) / len(counts)
    assert sum((count - mean) ** 2 for count in counts) / len(counts) > 10 * mean


def test_bursts_are_at_the_same_times_at_every_rate() -> None:
    # With all requests in bursts, what is silent at one rate is silent at every other.
    slow, fast = (within(bursts(rate, Random(3), peak=10, share=0.1, burst_s=0.5), 100) for rate in (50, 400))
    silent = [(begins, ends) for begins, ends in itertools.pairwise(slow) if ends - begins > SECOND]
    assert len(silent) > 5
    inside = [
        at_ns for at_ns in fast if any(begins + SECOND / 4 < at_ns < ends - SECOND / 4 for begins, ends in silent)
    ]
    assert len(inside) < len(fast) / 100


def test_a_higher_rate_brings_each_arrival_earlier() -> None:
    slow, fast = (list(itertools.islice(bursts(rate, Random(4)), 1000)) for rate in (100, 101))
    assert all(later >= earlier for later, earlier in zip(slow, fast, strict=True))


def test_bursts_that_exceed_the_mean_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot last"):
        next(bursts(100, Random(1), peak=20, share=0.1))


def test_equal_seeds_give_equal_arrivals() -> None:
    assert within(bursts(50, Random(7)), 20) == within(bursts(50, Random(7)), 20)


def test_streams_are_merged_in_order_and_end_with_the_time() -> None:
    merged = list(merge([trace([3, 1]), trace([2, 9]), trace([])], 5 * SECOND))
    assert merged == [(1 * SECOND, 0), (2 * SECOND, 1), (3 * SECOND, 0)]
