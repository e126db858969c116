"""An ONNX file, checked before anything loads it; its answers are ONNX Runtime's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import onnx
import onnxruntime
from erg_server.repository.onnx_signature import OnnxTensor, signature_of

from erg_converters.errors import ConversionError, SourceError
from erg_converters.locations import find
from erg_converters.settings import SourceSettings
from erg_converters.sources.base import Array, Feed, InputSpec, named_axes
from erg_converters.sources.onnx_checks import read_checked

_LENGTH_NAMES = frozenset({"length", "seq", "seq_len", "seq_length", "sequence", "sequence_length", "max_seq_len"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSource:
    """A sound ONNX file with the signature that it states."""

    kind: str
    location: str
    license: str
    path: Path
    sha256: str
    inputs: tuple[InputSpec, ...]
    output_names: tuple[str, ...]
    session: Any
    max_sizes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def load(cls, settings: SourceSettings, stated: tuple[InputSpec, ...], base: Path) -> OnnxSource:
        """Check and open the file; `stated` inputs may name its axes and say what pads them.

        Raises:
            SourceError: see `read_checked`; or ONNX Runtime does not load it; or `stated` contradicts it.
        """
        try:
            path = find(settings.path, base)
        except ConversionError as error:
            raise SourceError(f"source.path = {error.message}") from error
        if not path.is_file():
            raise SourceError(f"source.path = '{settings.path}': there is no file {path}")
        model = read_checked(path)
        inputs, outputs = _signature(model, path)
        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise SourceError(f"{path}: ONNX Runtime does not load it: {str(error).splitlines()[0]}") from error
        return cls(
            kind="onnx",
            location=settings.path,
            license=settings.license,
            path=path,
            # With its external data inside, and not of the file alone.
            sha256=hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
            inputs=_merged(inputs, stated, path),
            output_names=outputs,
            session=session,
        )

    def digest(self) -> str:
        """Of the model, its external data included."""
        return self.sha256

    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs that have no default of their own."""
        return self.inputs

    def file(self) -> Path | None:
        """The file."""
        return self.path

    def module(self) -> Any:
        """Raise SourceError: there is none."""
        raise SourceError(f"{self.path} is ONNX already; there is no module to export")

    def run(self, feed: Feed) -> list[Array]:
        """ONNX Runtime's answer on the CPU."""
        try:
            answers: list[Array] = self.session.run(list(self.output_names), dict(feed))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise SourceError(
                f"{self.path}: ONNX Runtime does not run it on {shapes}: {str(error).splitlines()[0][:300]}; export "
                "the model with the sizes fixed that it cannot vary"
            ) from error
        return answers


def _signature(model: onnx.ModelProto, path: Path) -> tuple[tuple[InputSpec, ...], tuple[str, ...]]:
    signature = signature_of(model)
    values = {value.name: value for value in model.graph.input}
    inputs = []
    for tensor in signature.inputs:
        if tensor.has_default:
            continue
        if tensor.datatype is None or tensor.shape is None or tensor.datatype.value in {"BYTES", "BF16"}:
            raise SourceError(f"{path}: input '{tensor.name}' is a {tensor.type_name} of shape {tensor.shape}; "
                              "an input is a tensor of numbers with a known rank")  # fmt: skip
        if not tensor.shape:
            raise SourceError(f"{path}: input '{tensor.name}' is a scalar; every input has a batch axis")
        if tensor.shape[0] not in {-1, 1}:
            raise SourceError(f"{path}: input '{tensor.name}' has a fixed batch of {tensor.shape[0]}: {tensor.shape}; "
                              "export the model with a dynamic batch axis")  # fmt: skip
        inputs.append(_spec(tensor, values[tensor.name]))
    if not inputs:
        raise SourceError(f"{path}: the model has no inputs")
    return tuple(inputs), tuple(tensor.name for tensor in signature.outputs)


def _spec(tensor: OnnxTensor, value: onnx.ValueInfoProto) -> InputSpec:
    assert tensor.datatype is not None
    dims = tensor.shape or ()
    named = [dim.dim_param for dim in value.type.tensor_type.shape.dim]
    stated = {
        position: "length" if name.lower() in _LENGTH_NAMES else name
        for position, name in enumerate(named)
        # An axis of no name of its own, as '?', is not the same axis as others so called.
        if position and name and name.isidentifier() and named.count(name) == 1
    }
    axes = named_axes(tensor.name, tensor.datatype.value, dims, stated)
    return InputSpec(name=tensor.name, datatype=tensor.datatype.value, dims=dims, axes=axes)


def _merged(inputs: tuple[InputSpec, ...], stated: tuple[InputSpec, ...], path: Path) -> tuple[InputSpec, ...]:
    found = {spec.name: spec for spec in inputs}
    for spec in stated:
        own = found.get(spec.name)
        if own is None:
            raise SourceError(f"{path} has no input '{spec.name}'; it has {', '.join(found)}")
        if (own.datatype, own.dims) != (spec.datatype, spec.dims):
            raise SourceError(
                f"{path}: input '{spec.name}' is {own.datatype} {list(own.dims)}, not {spec.datatype} {list(spec.dims)}"
            )
        found[spec.name] = spec
    return tuple(found.values())
