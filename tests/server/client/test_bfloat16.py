from __future__ import annotations

import struct

import numpy as np
import pytest
from erg_server.client.bfloat16 import from_bits, to_bits
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "bits"),
    [(0.0, 0), (1.0, 0x3F80), (-2.0, 0xC000), (float("inf"), 0x7F80), (1.00390625, 0x3F80), (1.01171875, 0x3F82)],
)
def test_values_are_the_upper_half_rounded_to_even(value: float, bits: int) -> None:
    assert to_bits(np.array([value], np.float32)).tolist() == [bits]


def test_nan_stays_nan_whatever_its_bits() -> None:
    nans = np.array([0x7FC00000, 0xFFFFFFFF, 0x7F800001], np.uint32).view(np.float32)
    assert np.isnan(from_bits(to_bits(nans))).all()


def test_a_scalar_keeps_its_shape() -> None:
    assert to_bits(np.array(1.0)).shape == ()
    assert from_bits(np.array(0x3F80, np.uint16)) == 1


@given(st.floats(width=32, allow_nan=False))
def test_what_is_a_bf16_already_comes_back(value: float) -> None:
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    exact = np.array([bits & 0xFFFF0000], np.uint32).view(np.float32)
    assert from_bits(to_bits(exact)).tobytes() == exact.tobytes() or np.isnan(exact).all()
