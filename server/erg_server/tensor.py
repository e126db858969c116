"""Tensors as the wire has them: a name, a datatype, a shape and raw little-endian bytes; numpy only on request."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from erg_server.datatype import DATATYPES, DataType
from erg_server.errors import InvalidArgumentError

Buffer = bytes | bytearray | memoryview


@dataclass(slots=True, init=False)
class Tensor:
    """One named tensor. `data` is C-order little-endian bytes; BYTES elements carry a 4-byte length each.

    Nothing changes a tensor once it is made. It is not frozen because that makes making one three times as slow.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    data: Buffer

    def __init__(self, name: str, datatype: DataType, shape: tuple[int, ...], data: Buffer) -> None:
        self.name = name
        self.datatype = datatype
        self.shape = shape
        self.data = data

    def numpy(self) -> npt.NDArray[Any]:
        """A view of the data (a new object array of `bytes` for BYTES), of `self.shape`."""
        if self.datatype is DataType.BYTES:
            array = np.empty(math.prod(self.shape), dtype=object)
            array[:] = list(iter_bytes_elements(self.data))
            return array.reshape(self.shape)
        return np.frombuffer(self.data, dtype=self.datatype.numpy).reshape(self.shape)

    @classmethod
    def from_numpy(cls, name: str, array: npt.NDArray[Any], datatype: DataType | None = None) -> Tensor:
        """Build a tensor from an array; `datatype` is needed only where numpy cannot tell (BF16)."""
        kind = datatype or datatype_of(array.dtype)
        if kind is DataType.BYTES:
            return cls(name, kind, array.shape, pack_bytes_elements(array.ravel().tolist()))
        contiguous = np.ascontiguousarray(array, dtype=kind.numpy)
        return cls(name, kind, array.shape, contiguous.reshape(-1).view(np.uint8).data)


def datatype_of(dtype: np.dtype[Any]) -> DataType:
    """The protocol's datatype of a numpy dtype; raises InvalidArgumentError for one the protocol lacks."""
    if dtype.kind in "OSU":
        return DataType.BYTES
    little = dtype.newbyteorder("<")
    for kind in DATATYPES:
        if kind is not DataType.BF16 and kind.numpy == little:
            return kind
    raise InvalidArgumentError(f"the protocol has no datatype for numpy's {dtype}")


def pack_bytes_elements(elements: Iterable[bytes | str]) -> bytes:
    """Serialise BYTES elements, row-major: each a 4-byte little-endian length and its bytes."""
    parts: list[bytes] = []
    for element in elements:
        raw = element.encode() if isinstance(element, str) else element
        parts.append(struct.pack("<I", len(raw)))
        parts.append(raw)
    return b"".join(parts)


def iter_bytes_elements(data: Buffer) -> Iterator[bytes]:
    """Walk serialised BYTES elements; raises InvalidArgumentError where a length runs past the end."""
    view = memoryview(data)
    end = len(view)
    at = 0
    while at < end:
        if end - at < 4:
            raise InvalidArgumentError(f"BYTES data ends inside an element's length, {end - at} bytes from its end")
        size = int.from_bytes(view[at : at + 4], "little")
        at += 4
        if size > end - at:
            raise InvalidArgumentError(f"a BYTES element claims {size} bytes where {end - at} are left")
        yield bytes(view[at : at + size])
        at += size


def count_bytes_elements(data: Buffer) -> int:
    """How many BYTES elements `data` holds, without copying them; raises InvalidArgumentError as the iterator does."""
    view = memoryview(data)
    end = len(view)
    at = count = 0
    while at < end:
        if end - at < 4:
            raise InvalidArgumentError(f"BYTES data ends inside an element's length, {end - at} bytes from its end")
        size = int.from_bytes(view[at : at + 4], "little")
        if size > end - at - 4:
            raise InvalidArgumentError(f"a BYTES element claims {size} bytes where {end - at - 4} are left")
        at += 4 + size
        count += 1
    return count
