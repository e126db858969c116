"""Completes a configuration from what the model's own file says, and holds what was given against the file.

The rule is Triton's. Without `max_batch_size`, a model whose inputs and outputs all have an open first axis batches up
to DEFAULT_MAX_BATCH_SIZE rows, and the server joins requests; an explicit `max_batch_size: 0` keeps it from that. In a
model that batches, the first axis of the file is the batch axis and dims leave it out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from erg_server.datatype import DataType
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.config import ConfigDocument
from erg_server.repository.manifest import Artifact
from erg_server.repository.onnx_safety import read_onnx
from erg_server.repository.onnx_signature import OnnxSignature, OnnxTensor, signature_of
from erg_server.repository.problem import ConfigError, Problem, did_you_mean
from erg_server.repository.spec import datatype_from_config, datatype_to_config

DEFAULT_MAX_BATCH_SIZE = 4
"""Triton's default: the signature that clients see of a model without a configuration is the same on both servers."""

PLATFORMS: Mapping[str, str] = {"onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt"}
"""Triton's older way to name a backend."""

MODEL_FILENAMES: Mapping[str, str] = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "openvino": "model.onnx"}
"""What a backend calls its file where the configuration does not; the first of them is who reads it by default."""

ONNX_BACKENDS = frozenset({"onnxruntime", "openvino"})
"""Those whose file tells the inputs and outputs."""


def complete(
    document: ConfigDocument, name: str, version: Path | None, stand_in: Artifact | None = None
) -> ConfigDocument:
    """The configuration of model `name` with everything that can be known filled in.

    `version` is the folder whose file is read, None to complete without one; `stand_in` is read where the folder has no
    file of the name that the backend would look for.

    Raises:
        ConfigError: the configuration contradicts the file.
        ErgError: the file cannot be read.
    """
    config = pb.ModelConfig()
    config.CopyFrom(document.config)
    completed = dataclasses.replace(document, config=config)
    config.name = config.name or name
    complete_backend(completed, version, stand_in)
    if config.version_policy.WhichOneof("policy_choice") is None:
        config.version_policy.latest.num_versions = 1
    if config.backend in ONNX_BACKENDS and version is not None:
        path = model_file(version, config.default_model_filename)
        signature = signature_of(read_onnx(path))
        problems = _complete_tensors(completed, signature, path)
        if problems:
            raise ConfigError(problems)
    return completed


def check_signature(document: ConfigDocument, version: Path) -> None:
    """Hold a completed configuration against the file of another of the model's versions; raises as `complete` does."""
    complete(document, document.config.name, version)


def model_file(version: Path, filename: str) -> Path:
    """What a backend loads from a version's folder: the file named, or the folder where none is.

    A folder of the file's name stands for the file of the same name in it, which is how Triton's repositories keep a
    model beside its external data.
    """
    path = version / filename if filename else version
    return path / filename if filename and path.is_dir() and (path / filename).exists() else path


def complete_backend(document: ConfigDocument, version: Path | None, stand_in: Artifact | None = None) -> None:
    """Fill in the backend, the platform and the model's file, in the document's own configuration; see `complete`."""
    config = document.config
    _complete_backend(config, version)
    if stand_in is None or version is None or document.gives("default_model_filename"):
        return
    filename = config.default_model_filename
    if config.backend in ("", stand_in.backend) and not (filename and model_file(version, filename).is_file()):
        config.backend = stand_in.backend
        config.default_model_filename = stand_in.file
        _complete_backend(config, version)


def _complete_backend(config: pb.ModelConfig, version: Path | None) -> None:
    if not config.backend:
        config.backend = PLATFORMS.get(config.platform, "")
    if not config.backend:
        names = {entry.name for entry in version.iterdir()} if version is not None else set()
        asked = config.default_model_filename
        for backend, filename in MODEL_FILENAMES.items():
            suffix = Path(filename).suffix
            if not config.backend and (filename in names if not asked else asked.endswith(suffix)):
                config.backend = backend
    config.default_model_filename = config.default_model_filename or MODEL_FILENAMES.get(config.backend, "")
    if not config.platform:
        config.platform = next((key for key, value in PLATFORMS.items() if value == config.backend), "")


def _complete_tensors(document: ConfigDocument, signature: OnnxSignature, path: Path) -> list[Problem]:
    config = document.config
    if not document.gives("max_batch_size") and config.max_batch_size == 0 and _can_batch(config, signature):
        config.max_batch_size = DEFAULT_MAX_BATCH_SIZE
        if config.WhichOneof("scheduling_choice") is None:
            config.dynamic_batching.SetInParent()
    given = {tensor.name for tensor in config.input}
    for tensor in signature.inputs:
        if tensor.name not in given and not tensor.has_default:
            config.input.add(name=tensor.name)
    if not config.output:
        # Sequences and maps (as scikit-learn's ZipMap makes) cannot travel; where there are tensors, those are served.
        tensors = [tensor for tensor in signature.outputs if tensor.datatype is not None]
        for tensor in tensors or signature.outputs:
            config.output.add(name=tensor.name)
    return [
        *_complete_side(document, "input", signature.inputs, path),
        *_complete_side(document, "output", signature.outputs, path),
    ]


def _can_batch(config: pb.ModelConfig, signature: OnnxSignature) -> bool:
    """Whether every first axis is open, and dims that were given leave it out."""
    tensors = [tensor for tensor in signature.inputs if not tensor.has_default]
    tensors += [tensor for tensor in signature.outputs if tensor.datatype is not None]
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    if not tensors or any(not shape or shape[0] != -1 for shape in shapes.values()):
        return False
    stated: list[pb.ModelInput | pb.ModelOutput] = [*config.input, *config.output]
    for given in stated:
        shape = shapes.get(given.name)
        dims = given.reshape.shape if given.HasField("reshape") else given.dims
        if shape and (given.dims or given.HasField("reshape")) and len(dims) != len(shape) - 1:
            return False
    return True


def _complete_side(
    document: ConfigDocument, side: Literal["input", "output"], tensors: Sequence[OnnxTensor], path: Path
) -> list[Problem]:
    """Complete the tensors of one side, and say where they contradict the file."""
    problems: list[Problem] = []
    by_name = {tensor.name: tensor for tensor in tensors}
    entries: list[pb.ModelInput | pb.ModelOutput] = []
    entries += document.config.input if side == "input" else document.config.output
    for index, entry in enumerate(entries):
        key = f"{side}[{index}]"
        tensor = by_name.get(entry.name)
        if tensor is None:
            hint = did_you_mean(entry.name, list(by_name))
            problems.append(document.problem(f"{key}.name", f"{path} has no {side} '{entry.name}'", hint))
        elif tensor.datatype is None:
            message = f"{side} '{entry.name}' of {path} is a {tensor.type_name}, which requests cannot carry"
            problems.append(document.problem(key, message, "convert the model so that it is a plain tensor"))
        else:
            batches = document.config.max_batch_size > 0
            problems += _complete_tensor(document, key, entry, tensor, tensor.datatype, batches=batches)
    return problems


def _complete_tensor(
    document: ConfigDocument,
    key: str,
    entry: pb.ModelInput | pb.ModelOutput,
    tensor: OnnxTensor,
    datatype: DataType,
    *,
    batches: bool,
) -> list[Problem]:
    problems: list[Problem] = []
    if entry.data_type == pb.TYPE_INVALID:
        entry.data_type = datatype_to_config(datatype)
    elif datatype_from_config(entry.data_type) is not datatype:
        given, wanted = (pb.DataType.Name(each) for each in (entry.data_type, datatype_to_config(datatype)))
        message = f"{given} is not the type of the file's '{entry.name}'"
        problems.append(document.problem(f"{key}.data_type", message, f"use {wanted}"))
    if isinstance(entry, pb.ModelInput) and entry.optional and not tensor.has_default and not _is_mask(document, entry):
        message = f"the file has no default for '{entry.name}', so a request cannot leave it out"
        problems.append(document.problem(f"{key}.optional", message))
    if tensor.shape is None:
        return problems
    shape = tensor.shape
    if batches:
        if not shape or shape[0] != -1:
            fixed = f"fixes its first axis to {shape[0]}" if shape else "is a scalar"
            message = f"the model cannot batch: '{entry.name}' of its file {fixed}"
            problems.append(document.problem("max_batch_size", message, "set max_batch_size to 0"))
            return problems
        shape = shape[1:]
    if not entry.dims and not entry.HasField("reshape"):
        entry.dims.extend(shape)
        if batches and not shape:
            # One value a row: callers send [rows, 1], the model takes [rows].
            entry.dims.append(1)
            entry.reshape.SetInParent()
        return problems
    dims = tuple(entry.reshape.shape) if entry.HasField("reshape") else tuple(entry.dims)
    if len(dims) != len(shape) or any(-1 not in pair and pair[0] != pair[1] for pair in zip(dims, shape, strict=True)):
        part = "reshape" if entry.HasField("reshape") else "dims"
        axis = " after the batch axis" if batches else ""
        message = f"{list(dims)} does not fit the file's '{entry.name}', whose shape{axis} is {list(shape)}"
        problems.append(document.problem(f"{key}.{part}", message, f"use {list(shape)}"))
    return problems


def _is_mask(document: ConfigDocument, entry: pb.ModelInput) -> bool:
    """Whether the server itself makes the input where a request leaves it out."""
    return any(padded.name == entry.name and padded.mask for padded in document.config.erg.padding.input)
