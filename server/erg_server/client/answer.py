"""An answer's tensors, and whether they are what the model's metadata promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from erg_server.client.bfloat16 import from_bits
from erg_server.client.generated_inputs import Declared, fits
from erg_server.datatype import DataType
from erg_server.errors import ErgError, InternalError
from erg_server.pb import inference_pb2 as pb
from erg_server.tensor import Tensor, count_bytes_elements


class WrongAnswerError(InternalError):
    """The server answered, and not what its own metadata says."""


def read_answer(answer: pb.ModelInferResponse) -> list[Tensor]:
    """The outputs; raises WrongAnswerError where datatype, shape and bytes of one do not agree."""
    if len(answer.raw_output_contents) != len(answer.outputs):
        raise WrongAnswerError(
            f"{len(answer.outputs)} outputs came with {len(answer.raw_output_contents)} raw contents"
        )
    return [_tensor(entry, raw) for entry, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)]


def check_answer(outputs: Sequence[Tensor], declared: Sequence[Declared]) -> None:
    """Return if the outputs are those of the metadata and every number in them is finite.

    Raises:
        WrongAnswerError: a name, datatype or shape is not the metadata's, or a value is NaN or infinite.
    """
    came, wanted = sorted(tensor.name for tensor in outputs), sorted(entry.name for entry in declared)
    if came != wanted:
        raise WrongAnswerError(f"outputs {_list(came)} came, and the metadata has {_list(wanted)}")
    by_name = {entry.name: entry for entry in declared}
    for tensor in outputs:
        promised = by_name[tensor.name]
        what = f"output '{tensor.name}'"
        if tensor.datatype.value != promised.datatype:
            raise WrongAnswerError(f"{what} is {tensor.datatype.value}, and {promised.datatype} in the metadata")
        if not fits(tensor.shape, promised.shape):
            raise WrongAnswerError(f"{what} has shape {list(tensor.shape)}, and {list(promised.shape)} in the metadata")
        held = values(tensor)
        if held.dtype.kind == "f" and not np.isfinite(held).all():
            bad = int(held.size - np.isfinite(held).sum())
            raise WrongAnswerError(f"{what}: {bad} of {held.size} values are NaN or infinite")


def values(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor's elements as numpy has them, BF16 as FP32."""
    held = tensor.numpy()
    return from_bits(held) if tensor.datatype is DataType.BF16 else held


def _tensor(entry: pb.ModelInferResponse.InferOutputTensor, raw: bytes) -> Tensor:
    what = f"output '{entry.name}'"
    try:
        kind = DataType.parse(entry.datatype)
        came = count_bytes_elements(raw) if kind is DataType.BYTES else len(raw)
    except ErgError as error:
        raise WrongAnswerError(f"{what}: {error.message}") from None
    unit = "strings" if kind is DataType.BYTES else "bytes"
    needed = math.prod(entry.shape) * (kind.itemsize or 1)
    if any(size < 0 for size in entry.shape) or came != needed:
        raise WrongAnswerError(f"{what} of {kind.value} {list(entry.shape)} came with {came} {unit}")
    return Tensor(entry.name, kind, tuple(entry.shape), raw)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
