"""BF16, which numpy lacks: the upper half of an FP32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def to_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Values as BF16's 16 bits, rounded to nearest even; NaN stays NaN."""
    held = np.asarray(values, dtype="<f4", order="C")
    # In 64 bits, where the carry of a NaN has room.
    bits = held.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(held), np.uint64(0x7FC0), rounded).astype(np.uint16)


def from_bits(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """BF16's 16 bits as the FP32 that they are the upper half of."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
