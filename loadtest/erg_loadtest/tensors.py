"""The v2 protocol's tensors as bytes: the few lines a client needs, so that nothing here depends on a server."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from erg_loadtest.errors import PlanError

Array = npt.NDArray[Any]

_NUMPY_NAMES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BF16": "<f4", "BYTES": "O",
}  # fmt: skip
"""How values are held before they are sent; BF16 as the FP32 that it is cut from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input of a model, as the server declares it.

    -1 in the shape stands for any size; the batch axis, where the model has one, comes first.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """One output of a model, as the server declares it."""

    name: str
    datatype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model takes and gives."""

    model: str
    version: str
    max_batch_size: int
    """0 when the model has no batch axis."""
    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...] = ()

    def row_shape(self, spec: InputSpec) -> tuple[int, ...]:
        """An input's declared sizes without the batch axis, where the model has one."""
        return spec.shape[1:] if self.max_batch_size > 0 else spec.shape

    def input(self, name: str) -> InputSpec:
        """The input called `name`; raises PlanError naming those that exist."""
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise PlanError(
            f"model '{self.model}' has no input '{name}'; it has {', '.join(spec.name for spec in self.inputs)}"
        )

    def output(self, name: str) -> OutputSpec:
        """The output called `name`; raises PlanError naming those that exist."""
        for spec in self.outputs:
            if spec.name == name:
                return spec
        known = ", ".join(spec.name for spec in self.outputs) or "none that it tells"
        raise PlanError(f"model '{self.model}' has no output '{name}'; it has {known}")


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """The dtype in which values of a protocol datatype are held here."""
    try:
        return np.dtype(_NUMPY_NAMES[datatype])
    except KeyError:
        raise PlanError(f"unknown datatype '{datatype}'; the protocol has {', '.join(_NUMPY_NAMES)}") from None


def to_wire(values: Array, datatype: str) -> bytes:
    """C-order little-endian bytes; BYTES elements each behind their 4-byte length."""
    if datatype == "BYTES":
        return b"".join(_length_prefixed(element) for element in values.ravel())
    held = np.ascontiguousarray(values, dtype=numpy_dtype(datatype))
    if datatype == "BF16":
        # The upper half of an FP32, rounded to nearest even.
        bits = held.view(np.uint32)
        rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        return (rounded >> np.uint32(16)).astype("<u2").tobytes()
    return held.tobytes()


def from_wire(raw: bytes, datatype: str, shape: Sequence[int]) -> Array:
    """The counterpart of `to_wire`; raises ValueError when the bytes do not fill the shape."""
    if datatype == "BYTES":
        elements = []
        at = 0
        while at < len(raw):
            (length,) = struct.unpack_from("<I", raw, at) if at + 4 <= len(raw) else (len(raw),)
            at += 4 + length
            if at > len(raw):
                raise ValueError("a BYTES element is cut off")
            elements.append(raw[at - length : at])
        held = np.empty(len(elements), dtype=object)
        held[:] = elements
        return held.reshape(shape)
    if datatype == "BF16":
        return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)
    return np.frombuffer(raw, dtype=numpy_dtype(datatype)).reshape(shape)


def matches(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a concrete shape is one of those that the declaration allows."""
    return len(shape) == len(declared) and all(d in (-1, s) for s, d in zip(shape, declared, strict=True))


def _length_prefixed(element: object) -> bytes:
    content = element if isinstance(element, bytes) else str(element).encode()
    return struct.pack("<I", len(content)) + content
