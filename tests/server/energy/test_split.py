"""Splitting integers without creating or losing any."""

from __future__ import annotations

import pytest
from erg_server.energy.split import split_exactly
from hypothesis import given
from hypothesis import strategies as st

amounts = st.integers(0, 1 << 80)
weights = st.lists(st.integers(0, 1 << 70), min_size=1, max_size=20).filter(any)


@given(amounts, weights)
def test_no_split_creates_or_loses_anything_or_strays_a_whole_unit_from_its_share(amount: int, by: list[int]) -> None:
    parts = split_exactly(amount, by)
    assert sum(parts) == amount
    for part, weight in zip(parts, by, strict=True):
        assert abs(part * sum(by) - amount * weight) < sum(by)


def test_what_rounding_leaves_goes_to_those_that_lost_most_by_it() -> None:
    assert split_exactly(10, [1, 1, 1]) == [4, 3, 3]
    assert split_exactly(10, [12, 29, 59]) == [1, 3, 6]
    assert split_exactly(0, [0, 0]) == [0, 0]


def test_something_cannot_be_split_over_nobody() -> None:
    with pytest.raises(ValueError, match="7 cannot be split"):
        split_exactly(7, [0, 0])
