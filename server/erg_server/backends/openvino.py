"""ONNX models by OpenVINO, on the CPU cores of the worker: the same file that ONNX Runtime reads.

What OpenVINO would choose by itself is stated here instead. Its floating-point precision is bf16 where the CPU has it,
it pins its own threads, and it quantizes the activations of models whose weights are compressed; a version is measured
and gated for what it was published with, and must run as that everywhere.

OpenVINO's CPU plugin computes INT64 modulo 2^32 and FP64 in 32 bits, without a word. INT64 is what token ids come in,
so it is accepted, inputs outside 32 bits are refused one by one, and a graph whose own integers grow past that is not
for this backend. FP64 and UINT64 are refused at load.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from erg_server.backends.base import Array, ModelLoad
from erg_server.backends.openvino_library import cause, new_core, ov
from erg_server.backends.openvino_shapes import ShapeCheck
from erg_server.datatype import DataType
from erg_server.errors import (
    ErgError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    UnimplementedError,
)
from erg_server.repository.spec import PRECISION_PARAMETER, TensorSpec

log = logging.getLogger(__name__)

DEFAULTS: Mapping[str, str] = {
    PRECISION_PARAMETER: "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "CPU_RUNTIME_CACHE_CAPACITY": "1000",
}
"""OpenVINO's own are bf16, 32 and 5000: with batches of every shape the last makes a worker grow for hours."""

ALLOWED: Mapping[str, tuple[str, ...]] = {
    PRECISION_PARAMETER: ("f32", "bf16", "f16"),
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": (),
    "CPU_RUNTIME_CACHE_CAPACITY": (),
    "EXECUTION_MODE_HINT": ("PERFORMANCE", "ACCURACY"),
    "CPU_DENORMALS_OPTIMIZATION": ("YES", "NO"),
    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": (),
}
"""The properties that a configuration's parameters may set, with their values where OpenVINO has a list."""

_OWNED = frozenset({
    "AFFINITY", "ENABLE_CPU_PINNING", "ENABLE_CPU_RESERVATION", "ENABLE_HYPER_THREADING", "INFERENCE_NUM_THREADS",
    "NUM_STREAMS", "PERFORMANCE_HINT", "PERFORMANCE_HINT_NUM_REQUESTS", "SCHEDULING_CORE_TYPE",
})  # fmt: skip
"""What the worker decides: it owns its cores."""

_REFUSED: Mapping[DataType, str] = {
    DataType.BYTES: "the backend passes no strings",
    DataType.FP64: "OpenVINO would compute it in 32 bits",
    DataType.UINT64: "OpenVINO would compute it in 32 bits",
}
_INT32 = np.iinfo(np.int32)
_EXACTNESS = ("bf16", "f16", "f32")


class OpenVinoModel:
    """One compiled model with one request: a worker runs one batch at a time."""

    def __init__(
        self, read: Callable[[], ov.Model], compile_model: Callable[[ov.Model], ov.CompiledModel], model: ModelLoad
    ) -> None:
        """Raises RuntimeError where one of the calls does."""
        graph = read()
        self._inputs = model.spec.inputs
        self._outputs = [(spec, _port(graph.outputs, spec, "output", model)) for spec in model.spec.outputs]
        self._ports = [_port(graph.inputs, spec, "input", model) for spec in model.spec.inputs]
        self._compile: Callable[[], ov.CompiledModel] = lambda: compile_model(read())
        self._request: ov.InferRequest | None = compile_model(graph).create_infer_request()
        self._shapes = ShapeCheck(graph, self._ports, batched=model.spec.max_batch_size > 0)

    def run(self, inputs: Sequence[Array | None]) -> Sequence[Array]:
        """Run one batch; the arrays returned are the caller's to keep.

        Raises:
            InvalidArgumentError: an input is missing, does not fit the model, or has an INT64 outside 32 bits.
            InternalError: OpenVINO fails in its words.
        """
        request = self.ready()
        arrays = [_checked(array, spec) for spec, array in zip(self._inputs, inputs, strict=True)]
        self._shapes.check([array.shape for array in arrays])
        for spec, port, array in zip(self._inputs, self._ports, arrays, strict=True):
            try:
                request.set_input_tensor(port, _shared(array, spec))
            except RuntimeError as error:
                raise InvalidArgumentError(f"OpenVINO refuses input '{spec.name}': {cause(error)}") from error
        try:
            # Not infer(): with one thread it loses its own exceptions, and what is in the outputs then is the answer
            # to the batch before (2026.4). This costs 7 us more.
            request.start_async()
            request.wait()
        except RuntimeError as error:
            # What failed half-way may not run the next batch.
            self._request = None
            raise InternalError(f"OpenVINO failed: {cause(error)}") from error
        # The request writes its next answers to the same memory, so these are copied out of it.
        outputs = [(spec, request.get_output_tensor(port).data.copy()) for spec, port in self._outputs]
        return [array.view(np.uint16) if spec.datatype is DataType.BF16 else array for spec, array in outputs]

    def ready(self) -> ov.InferRequest:
        """The request, of a model compiled anew where there is none; raises InternalError where that fails."""
        if self._request is None:
            try:
                self._request = self._compile().create_infer_request()
            except RuntimeError as error:
                raise InternalError(f"OpenVINO does not compile the model again: {cause(error)}") from error
        return self._request

    def close(self) -> None:
        """Drop the request, and with it the compiled model."""
        self._request = None


class OpenVinoBackend:
    """Compiles models for the worker's cores and nothing else."""

    def __init__(self) -> None:
        self._core = new_core()

    def load(self, model: ModelLoad) -> OpenVinoModel:
        """Compile the model.

        Raises:
            UnimplementedError: the worker's device is no CPU, or a tensor's datatype cannot be passed as it is.
            InvalidArgumentError: a parameter is not one of `ALLOWED`, or has a value that OpenVINO does not take.
            FailedPreconditionError: the file does not load, or would run less exactly than the precision stated.
        """
        if model.device.kind != "cpu":
            raise UnimplementedError(
                f"backend 'openvino' runs on CPU workers, and {model.device.name} is none: use instance_group KIND_CPU"
            )
        for spec in (*model.spec.inputs, *model.spec.outputs):
            if spec.datatype in _REFUSED:
                raise UnimplementedError(
                    f"backend 'openvino' does not take '{spec.name}' of type {spec.datatype.value}: "
                    f"{_REFUSED[spec.datatype]}; use backend 'onnxruntime'"
                )
        properties = compile_properties(model)
        try:
            loaded = OpenVinoModel(
                lambda: self._core.read_model(str(model.path)),
                lambda graph: self._core.compile_model(graph, "CPU", properties),
                model,
            )
        except ErgError:
            raise
        except Exception as error:
            if "property key" in str(error):
                raise InvalidArgumentError(f"model '{model.name}': {cause(error)}") from error
            raise FailedPreconditionError(f"OpenVINO does not load {model.path.name}: {cause(error)}") from error
        actual = loaded.ready().get_compiled_model().get_property(PRECISION_PARAMETER).get_type_name()
        _check_precision(str(properties[PRECISION_PARAMETER]), actual, model)
        return loaded


def compile_properties(model: ModelLoad) -> dict[str, Any]:
    """The properties that a model is compiled with: the worker's, the defaults, and the configuration's parameters.

    Parameters in capitals are taken for OpenVINO's properties; others may be anybody's and are left alone.

    Raises:
        InvalidArgumentError: a parameter is not one of `ALLOWED`, or its value is none of the property's.
    """
    properties: dict[str, Any] = {
        **DEFAULTS,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": model.device.threads,
        # The worker has pinned the process; OpenVINO pinning its threads again would count cores it may not use.
        "ENABLE_CPU_PINNING": False,
    }
    for key, value in model.spec.parameters.items():
        if key in _OWNED:
            raise InvalidArgumentError(
                f"model '{model.name}': parameter {key} is the worker's to set; see --threads-per-worker, --cpu-workers"
            )
        if key in ALLOWED:
            if ALLOWED[key] and value not in ALLOWED[key]:
                raise InvalidArgumentError(
                    f"model '{model.name}': parameter {key} is '{value}'; allowed: {', '.join(ALLOWED[key])}"
                )
            properties[key] = value
        elif key.isupper():
            near = difflib.get_close_matches(key, ALLOWED, n=1)
            raise InvalidArgumentError(
                f"model '{model.name}': parameter {key} is no property that backend 'openvino' takes; "
                f"{f'did you mean {near[0]}?' if near else 'allowed: ' + ', '.join(ALLOWED)}"
            )
    return properties


def _check_precision(asked: str, actual: str, model: ModelLoad) -> None:
    """OpenVINO replaces a precision that the CPU lacks; a more exact one costs time only, a less exact one is refused.

    Raises:
        FailedPreconditionError: it would run less exactly than was asked for.
    """
    if _EXACTNESS.index(actual) < _EXACTNESS.index(asked):
        raise FailedPreconditionError(
            f"model '{model.name}': this CPU has no {asked}, and OpenVINO would run the model in {actual}; "
            f"set parameter {PRECISION_PARAMETER} to f32 or bf16"
        )
    if actual != asked:
        log.warning("model %s runs in %s: this CPU has no %s, so it costs more", model.name, actual, asked)


def _port(ports: Sequence[Any], spec: TensorSpec, side: str, model: ModelLoad) -> int:
    """The number of the model's input or output of that name; raises FailedPreconditionError where it has none."""
    for number, port in enumerate(ports):
        if spec.name in port.names:
            return number
    known = ", ".join(f"'{name}'" for port in ports for name in sorted(port.names))
    raise FailedPreconditionError(
        f"OpenVINO finds no {side} '{spec.name}' in {model.path.name}; it has {known or 'none'} "
        "(an input with a default is a constant to it)"
    )


def _checked(array: Array | None, spec: TensorSpec) -> Array:
    """The array, if there is one that OpenVINO computes with as it is; raises InvalidArgumentError."""
    if array is None:
        raise InvalidArgumentError(f"OpenVINO needs every input, and '{spec.name}' is missing")
    if spec.datatype is DataType.INT64 and array.size and (array.max() > _INT32.max or array.min() < _INT32.min):
        raise InvalidArgumentError(
            f"input '{spec.name}' has a value outside 32 bits, which OpenVINO would cut off; use backend 'onnxruntime'"
        )
    return array


def _shared(array: Array, spec: TensorSpec) -> ov.Tensor:
    """A tensor over the array's own memory, or over a copy where OpenVINO could not use that."""
    if not (array.flags.writeable and array.flags.c_contiguous):
        array = np.array(array, order="C")
    if spec.datatype is DataType.BF16:
        return ov.Tensor(array, ov.Shape(array.shape), ov.Type.bf16)
    return ov.Tensor(array, shared_memory=True)
