"""Histograms with fixed buckets."""

from __future__ import annotations

from erg_server.telemetry.histogram import LATENCY_BUCKETS_NS, ROWS_BUCKETS, SHARE_BUCKETS_PERCENT, Histogram
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(0, 1 << 40)))
def test_every_value_is_in_the_buckets_at_and_above_it(values: list[int]) -> None:
    histogram = Histogram(LATENCY_BUCKETS_NS)
    for value in values:
        histogram.observe(value)
    buckets = histogram.cumulative()
    counts = [count for _, count in buckets[:-1]]
    assert counts == [len([value for value in values if value <= bound]) for bound in LATENCY_BUCKETS_NS]
    assert buckets[-1][0] == "+Inf"
    assert buckets[-1][1] == len(values)
    assert histogram.total == sum(values)


def test_a_bound_belongs_to_its_own_bucket() -> None:
    histogram = Histogram((1, 2))
    for value in (0, 1, 2, 3):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1]


def test_bounds_read_in_base_units() -> None:
    seconds = [text for text, _ in Histogram(LATENCY_BUCKETS_NS).cumulative(1e-9)]
    assert seconds[:3] == ["0.0001", "0.00025", "0.0005"]
    assert seconds[-3:] == ["10", "30", "+Inf"]
    assert [text for text, _ in Histogram(SHARE_BUCKETS_PERCENT).cumulative(0.01)][:3] == ["0", "0.01", "0.05"]


def test_bounds_ascend() -> None:
    for bounds in (LATENCY_BUCKETS_NS, ROWS_BUCKETS, SHARE_BUCKETS_PERCENT):
        assert list(bounds) == sorted(set(bounds))
