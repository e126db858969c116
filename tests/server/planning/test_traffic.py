from __future__ import annotations

import itertools

import pytest
from erg_server.planning.traffic import GeneratedArrivals, ModelTraffic, RecordedArrivals

from tests.server.planning.builders import traffic

SECONDS = 100


@pytest.mark.parametrize("pattern", ["poisson", "constant", "bursty"])
def test_every_pattern_has_the_rate_that_was_stated(pattern: str) -> None:
    times_ns = traffic(rate_per_s=200, pattern=pattern).times_ns(seed=1)
    count = sum(1 for _ in itertools.takewhile(lambda at_ns: at_ns < SECONDS * 1e9, times_ns))
    assert count == pytest.approx(200 * SECONDS, rel=0.2)


def test_bursts_are_as_high_as_rare_and_as_long_as_stated() -> None:
    # A peak of 1 / burst_share leaves nothing for the time between.
    bursty = traffic(rate_per_s=200, pattern="bursty", peak=10.0, burst_share=0.1, burst_s=2.0)
    times_ns = list(itertools.takewhile(lambda at_ns: at_ns < 4000 * 1e9, bursty.times_ns(seed=1)))
    assert len({at_ns // 100_000_000 for at_ns in times_ns}) == pytest.approx(0.1 * 40_000, rel=0.2)
    silences = sum(later - earlier > 1e8 for earlier, later in itertools.pairwise(times_ns))
    assert silences == pytest.approx(4000 / 20, rel=0.2)


def test_constant_arrivals_have_equal_gaps() -> None:
    times_ns = list(itertools.islice(traffic(rate_per_s=10, pattern="constant").times_ns(seed=3), 50))
    gaps_ns = {later - earlier for earlier, later in itertools.pairwise(times_ns)}
    assert max(gaps_ns) - min(gaps_ns) <= 1
    assert times_ns[0] < 1e8


def test_times_are_those_of_the_seed_and_of_the_model_alone() -> None:
    def first(name: str, seed: int) -> list[int]:
        return list(itertools.islice(traffic(name).times_ns(seed), 5))

    assert first("a", 1) == first("a", 1)
    assert first("a", 1) != first("a", 2)
    assert first("a", 1) != first("b", 1)


def test_a_recording_is_counted_as_far_as_it_is_simulated() -> None:
    recorded = ModelTraffic(name="m", arrivals=RecordedArrivals(times_s=(0.0, 1.0, 5.0), rows=(2, 4, 8)))
    assert (recorded.requests(2.0), recorded.rows_per_s(2.0), recorded.most_rows) == (2, 3.0, 8)


def test_rows_count_for_the_rate_of_rows() -> None:
    load = ModelTraffic(name="m", arrivals=GeneratedArrivals(rate_per_s=10, rows=3))
    assert (load.rows_per_s(60.0), load.requests(60.0), load.most_rows) == (30, 600, 3)
