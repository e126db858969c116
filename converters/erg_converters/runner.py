"""A variant loaded in the backend that will serve it, with the settings that it will be served with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import onnx
from erg_server.backends.base import LoadedModel, ModelLoad
from erg_server.backends.registry import create_backend
from erg_server.devices.device import Device
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.onnx_signature import OnnxTensor, signature_of
from erg_server.repository.spec import PRECISION_PARAMETER, ModelSpec, datatype_to_config

from erg_converters.errors import ConversionError
from erg_converters.sources.base import Array, Feed


@dataclass(slots=True, kw_only=True)
class Runner:
    """Runs feeds. `output_names` are in the order of its answers."""

    path: Path
    backend: str
    precision: str
    threads: int
    output_names: tuple[str, ...]
    _names: tuple[str, ...]
    _model: LoadedModel

    @classmethod
    def open(cls, path: Path, backend: str, precision: str, threads: int) -> Self:
        """Load an ONNX file.

        Raises:
            ErgError: the backend is not installed or does not load the file; its words are in the message.
        """
        config = _config(path, backend, precision)
        spec = ModelSpec.from_config(config)
        load = ModelLoad(name=path.stem, version=1, config=config, spec=spec, path=path, device=cpu_device(threads))
        return cls(
            path=path,
            backend=backend,
            precision=precision,
            threads=threads,
            output_names=tuple(tensor.name for tensor in spec.outputs),
            _names=tuple(tensor.name for tensor in spec.inputs),
            _model=create_backend(backend).load(load),
        )

    def run(self, feed: Feed) -> Sequence[Array]:
        """One batch; raises ErgError where the backend refuses it. The arrays are valid until the next call."""
        return self._model.run([feed.get(name) for name in self._names])

    def close(self) -> None:
        """Free the model."""
        self._model.close()


def cpu_device(threads: int) -> Device:
    """As many of this process's cores as a worker of that width would own."""
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise ConversionError(f"measure.threads is {threads}, and this machine lets the conversion use {len(cores)}")
    return Device(kind="cpu", id=0, cores=tuple(cores[:threads]))


def _config(path: Path, backend: str, precision: str) -> pb.ModelConfig:
    signature = signature_of(onnx.load(path, load_external_data=False))
    config = pb.ModelConfig(name=path.stem, backend=backend, default_model_filename=path.name)
    for tensor in signature.inputs:
        if not tensor.has_default:
            config.input.add(name=tensor.name, data_type=_datatype(tensor), dims=tensor.shape or ())
    for tensor in signature.outputs:
        config.output.add(name=tensor.name, data_type=_datatype(tensor), dims=tensor.shape or ())
    if precision:
        config.parameters[PRECISION_PARAMETER].string_value = precision
    return config


def _datatype(tensor: OnnxTensor) -> pb.DataType.ValueType:
    if tensor.datatype is None:
        raise ConversionError(f"'{tensor.name}' is a {tensor.type_name}, which requests cannot carry")
    return datatype_to_config(tensor.datatype)
