"""The datatypes of the inference protocol. Apart from tensors because an enumeration with fields cannot be compiled."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from erg_server.errors import InvalidArgumentError

_NUMPY_NAMES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BYTES": "O", "BF16": "<u2",
}  # fmt: skip


class DataType(enum.Enum):
    """A datatype of the inference protocol.

    The value is the protocol's name. `itemsize` is in bytes, 0 for BYTES, whose elements vary. `numpy` is the dtype
    that holds one element; BF16, which numpy lacks, is held as its 16 bits.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"
    BF16 = "BF16"

    itemsize: int
    numpy: np.dtype[Any]
    wire_id: int
    """Position in this list: how frames between front and worker name the type."""

    def __init__(self, name: str) -> None:
        self.numpy = np.dtype(_NUMPY_NAMES[name])
        self.itemsize = 0 if name == "BYTES" else self.numpy.itemsize
        self.wire_id = list(_NUMPY_NAMES).index(name)

    @classmethod
    def parse(cls, name: str) -> DataType:
        """The datatype called `name`; raises InvalidArgumentError naming those that exist."""
        try:
            return cls(name)
        except ValueError:
            raise InvalidArgumentError(
                f"unknown datatype '{name}'; the protocol has {', '.join(_NUMPY_NAMES)}"
            ) from None


DATATYPES: tuple[DataType, ...] = tuple(DataType)
"""Indexed by `DataType.wire_id`."""
