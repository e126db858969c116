from __future__ import annotations

from itertools import pairwise

import pytest
from erg_server.autoscaling.utilization import LEAST, MOST, refused_share, utilization
from erg_server.scheduling.admission import LATE_SHARE
from hypothesis import given
from hypothesis import strategies as st


def test_one_row_in_a_hundred_is_refused_at_the_share_that_is_found() -> None:
    for rows_left, devices in ((2.0, 1), (4.0, 1), (4.0, 8), (1.0, 2)):
        used = utilization(rows_left, devices)
        assert refused_share(used, rows_left, devices) == pytest.approx(LATE_SHARE, rel=0.02)


def test_what_the_queue_of_one_device_refuses_is_as_published() -> None:
    # M/D/1 with room for two service times at 30 %: the root of 0.3 (e^h - 1) = h is 2.0646.
    tail = 0.7 / (0.3 * 7.8819 - 1) * 7.8819**-2
    assert refused_share(0.3, 2.0, 1) == pytest.approx(0.7 * tail / (1 - 0.3 * tail), rel=1e-3)


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.integers(0, 512))
def test_more_time_never_allows_less_and_the_share_stays_within_its_bounds(a: float, b: float, devices: int) -> None:
    less, more = utilization(min(a, b), devices), utilization(max(a, b), devices)
    assert LEAST <= less <= more + 1e-9 <= MOST + 1e-9


def test_many_devices_are_used_more_than_few_with_as_much_time_each() -> None:
    shares = [utilization(2.0 * devices, devices) for devices in (1, 2, 4, 8, 16)]
    assert all(few < many for few, many in pairwise(shares))
