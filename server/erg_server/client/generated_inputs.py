"""Inputs made from a model's metadata: values that about any model takes, equal from run to run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from erg_server.client.bfloat16 import to_bits
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.tensor import Tensor

MAX_BYTES = (1 << 31) - 1
"""Of one input: gRPC's own limit for a message."""
TEXT = b"erg"

Declared = pb.ModelMetadataResponse.TensorMetadata


def parse_shapes(stated: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`NAME=1,128` for each input whose open axes are not to be 1.

    Raises:
        InvalidArgumentError: not of that form, or twice for one input.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for item in stated:
        name, equals, sizes = item.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
        except ValueError:
            shape = (-1,)
        if not equals or not name or any(size < 0 for size in shape):
            raise InvalidArgumentError(f"--shape takes NAME=SIZE,SIZE with every axis, as in input_ids=1,128: '{item}'")
        if name in shapes:
            raise InvalidArgumentError(f"--shape states '{name}' twice")
        shapes[name] = shape
    return shapes


def generate(declared: Sequence[Declared], shapes: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
    """One tensor an input. Open axes have size 1 unless `shapes` states another for that input.

    Floating-point values are in [0, 1) from a fixed seed; integers are 1, which is an index, a mask and a number of
    nearly every model; booleans are true, and strings "erg".

    Raises:
        InvalidArgumentError: a shape is for no input or contradicts the metadata, or an input would be too large.
    """
    for name in shapes.keys() - {entry.name for entry in declared}:
        known = ", ".join(entry.name for entry in declared) or "none"
        raise InvalidArgumentError(f"--shape: the model has no input '{name}'; it has {known}")
    random = np.random.default_rng(0)
    return [_tensor(entry, _shape(entry, shapes.get(entry.name)), random) for entry in declared]


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Whether a shape is one of those that the metadata allows, where a negative size is any."""
    return len(shape) == len(declared) and all(
        wanted in {-1, size} for size, wanted in zip(shape, declared, strict=True)
    )


def _shape(entry: Declared, stated: tuple[int, ...] | None) -> tuple[int, ...]:
    if stated is None:
        return tuple(1 if size < 0 else size for size in entry.shape)
    if not fits(stated, entry.shape):
        raise InvalidArgumentError(f"--shape: input '{entry.name}' is {list(entry.shape)}, not {list(stated)}")
    return stated


def _tensor(entry: Declared, shape: tuple[int, ...], random: np.random.Generator) -> Tensor:
    kind = DataType.parse(entry.datatype)
    elements = math.prod(shape)
    if elements * (kind.itemsize or 4 + len(TEXT)) > MAX_BYTES:
        raise InvalidArgumentError(f"input '{entry.name}' of shape {list(shape)} is larger than a gRPC message may be")
    if kind is DataType.BYTES:
        values = np.full(shape, TEXT, dtype=object)
    elif kind is DataType.BF16:
        values = to_bits(random.random(shape, dtype=np.float32))
    elif kind.numpy.kind == "f":
        values = random.random(shape, dtype=np.float32).astype(kind.numpy)
    else:
        values = np.ones(shape, dtype=kind.numpy)
    return Tensor.from_numpy(entry.name, values, kind)
