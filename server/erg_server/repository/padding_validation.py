"""Finds what is wrong with a padding rule: it must name axes that are open, and values that its inputs can hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from erg_server.datatype import DataType
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.config import ConfigDocument
from erg_server.repository.problem import Problem, did_you_mean
from erg_server.repository.spec import datatype_from_config

_KEY = "erg.padding"


def check_padding(document: ConfigDocument) -> Iterator[Problem]:
    """The problems of `erg.padding`; none where there is no such rule."""
    config = document.config
    if not config.erg.HasField("padding"):
        return
    padding = config.erg.padding
    if config.max_batch_size < 1 or config.WhichOneof("scheduling_choice") != "dynamic_batching":
        message = "only batches that the server joins are padded"
        yield document.problem(_KEY, message, "set max_batch_size and dynamic_batching")
    if all(each.mask for each in padding.input):
        yield document.problem(f"{_KEY}.input", "names no input but masks", "name the input that has the length")
    inputs = {tensor.name: tensor for tensor in config.input}
    seen: set[str] = set()
    for index, padded in enumerate(padding.input):
        key = f"{_KEY}.input[{index}]"
        tensor = inputs.get(padded.name)
        if tensor is None:
            message = f"the model has no input '{padded.name}'"
            yield document.problem(f"{key}.name", message, did_you_mean(padded.name, list(inputs)))
            continue
        if padded.name in seen:
            yield document.problem(f"{key}.name", f"there is another rule for '{padded.name}'")
        seen.add(padded.name)
        yield from _check_axis(document, key, tensor, padded.axis)
        yield from _check_value(document, key, tensor, padded)
    outputs = {tensor.name: tensor for tensor in config.output}
    for index, cut in enumerate(padding.output):
        key = f"{_KEY}.output[{index}]"
        output = outputs.get(cut.name)
        if output is None:
            message = f"the model has no output '{cut.name}'"
            yield document.problem(f"{key}.name", message, did_you_mean(cut.name, list(outputs)))
        else:
            yield from _check_axis(document, key, output, cut.axis)


def _check_axis(
    document: ConfigDocument, key: str, tensor: pb.ModelInput | pb.ModelOutput, axis: int
) -> Iterator[Problem]:
    if tensor.HasField("reshape"):
        yield document.problem(key, f"'{tensor.name}' is reshaped, so its axes are not the model's")
    elif not 1 <= axis <= len(tensor.dims):
        message = f"{axis} is not an axis of '{tensor.name}' after the batch axis"
        yield document.problem(f"{key}.axis", message, f"allowed: 1 to {len(tensor.dims)}")
    elif tensor.dims[axis - 1] != -1:
        message = f"axis {axis} of '{tensor.name}' has the fixed length {tensor.dims[axis - 1]}"
        yield document.problem(f"{key}.axis", message, "name an axis whose dims entry is -1")


def _check_value(
    document: ConfigDocument, key: str, tensor: pb.ModelInput, padded: pb.PaddedInput
) -> Iterator[Problem]:
    if tensor.data_type == pb.TYPE_INVALID:
        return  # told already
    datatype = datatype_from_config(tensor.data_type)
    if padded.mask and padded.value != 0:
        yield document.problem(f"{key}.value", "a mask is 0 where the input is filled", "leave the key out")
    elif datatype is DataType.BYTES:
        yield document.problem(key, f"'{tensor.name}' holds BYTES, which cannot be filled with a number")
    elif not _holds(datatype, padded.value):
        yield document.problem(f"{key}.value", f"{padded.value:g} is no value of {datatype.value}")


def _holds(datatype: DataType, value: float) -> bool:
    kind = datatype.numpy.kind
    if datatype is DataType.BF16 or kind == "f":
        return True
    if kind == "b":
        return value in (0, 1)
    limits = np.iinfo(datatype.numpy)
    return value == int(value) and limits.min <= value <= limits.max if np.isfinite(value) else False
