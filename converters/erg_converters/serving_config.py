"""The configuration of a published model: an operator's own is left alone, and one is written where there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnx
from erg_server.errors import ErgError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.layout import CONFIG_FILENAMES, open_plain
from erg_server.repository.manifest import Measurement
from erg_server.repository.onnx_signature import signature_of
from erg_server.repository.spec import datatype_to_config
from google.protobuf import text_format

from erg_converters.errors import ConversionError
from erg_converters.settings import PublishSettings
from erg_converters.sources.base import InputSpec

LENGTH_AXIS = "length"
MASK_INPUT = "attention_mask"
BUCKET_STEP = 16
GAIN_SHARE = 1.05
"""A batch size is worth having while its CPU time per row is within this of the best smaller one's."""


def read_config(path: Path) -> str:
    """The configuration that a recipe names; raises ConversionError where it cannot be read."""
    try:
        with open_plain(path) as file:
            return file.read().decode()
    except (ErgError, UnicodeDecodeError) as error:
        raise ConversionError(f"publish.config: {error}") from error


def check_config_place(settings: PublishSettings, config: str | None) -> None:
    """Raise ConversionError where publication would meet another configuration, before hours are spent."""
    if config is None:
        return
    for name in CONFIG_FILENAMES:
        path = Path(settings.repository) / settings.name / name
        if path.exists() and path.read_text(encoding="utf-8") != config:
            raise ConversionError(f"{path} differs from publish.config; make them equal, or leave publish.config out")


def has_config(model: Path) -> bool:
    """Whether the model's folder has a configuration, which is an operator's and stays."""
    return any((model / name).exists() for name in CONFIG_FILENAMES)


def best_batch(measurements: Sequence[Measurement], variant: str) -> int:
    """The largest measured batch size that still gains: see `GAIN_SHARE`. Geometric mean over the lengths."""
    logs: dict[int, list[float]] = {}
    for each in measurements:
        if each.variant == variant and each.cpu_ms_per_row:
            logs.setdefault(each.batch_size, []).append(math.log(each.cpu_ms_per_row))
    best, least = 1, math.inf
    for size in sorted(logs):
        cost = math.exp(sum(logs[size]) / len(logs[size]))
        if cost <= least * GAIN_SHARE:
            best = size
        least = min(least, cost)
    return best


def derive_config(name: str, model: onnx.ModelProto, inputs: Sequence[InputSpec], max_batch_size: int) -> str:
    """A config.pbtxt for a model that has none: its signature, batching, and padding where a mask makes it harmless.

    Which file and backend run is left out: the manifest says it, and a configuration would overrule it.
    """
    signature = signature_of(model)
    # A model of a fixed batch of one cannot batch: that axis is then one like any other.
    batched = all(0 in spec.dynamic for spec in inputs)
    config = pb.ModelConfig(name=name, max_batch_size=max_batch_size if batched else 0)
    for tensor in signature.inputs:
        if not tensor.has_default and tensor.datatype is not None:
            config.input.add(
                name=tensor.name, data_type=datatype_to_config(tensor.datatype), dims=(tensor.shape or (-1,))[batched:]
            )
    for tensor in signature.outputs:
        if tensor.datatype is not None:
            config.output.add(
                name=tensor.name, data_type=datatype_to_config(tensor.datatype), dims=(tensor.shape or (-1,))[batched:]
            )
    if batched:
        config.dynamic_batching.SetInParent()
    _add_padding(config, model, inputs)
    head = "# Written by `erg convert`; yours to edit: later versions leave it as it is.\n"
    return head + text_format.MessageToString(config)


def _add_padding(config: pb.ModelConfig, model: onnx.ModelProto, inputs: Sequence[InputSpec]) -> None:
    """Let requests of different length share a batch, where a mask tells the model what was filled in."""
    with_length = [spec for spec in inputs if LENGTH_AXIS in spec.dynamic.values()]
    if not any(spec.name == MASK_INPUT for spec in with_length):
        return
    padding = config.erg.padding
    padding.bucket_step = BUCKET_STEP
    for spec in with_length:
        axis = next(position for position, name in spec.dynamic.items() if name == LENGTH_AXIS)
        if spec.name == MASK_INPUT:
            padding.input.add(name=spec.name, axis=axis, mask=True)
        else:
            padding.input.add(name=spec.name, axis=axis, value=spec.pad_value)
    symbol = _symbol(model, with_length[0])
    for output in model.graph.output:
        for axis, dim in enumerate(output.type.tensor_type.shape.dim):
            if axis and symbol and dim.dim_param == symbol:
                padding.output.add(name=output.name, axis=axis)


def _symbol(model: onnx.ModelProto, spec: InputSpec) -> str:
    """What the graph calls the length axis of an input."""
    axis = next(position for position, name in spec.dynamic.items() if name == LENGTH_AXIS)
    value = next(each for each in model.graph.input if each.name == spec.name)
    return value.type.tensor_type.shape.dim[axis].dim_param
