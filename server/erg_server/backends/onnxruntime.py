"""ONNX models by ONNX Runtime: on the CPU cores of the worker, or on its GPU by CUDA or TensorRT."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from erg_server.backends.base import Array, ModelLoad
from erg_server.datatype import DataType
from erg_server.errors import ErgError, FailedPreconditionError, InternalError, InvalidArgumentError, UnimplementedError
from erg_server.repository.spec import PRECISION_PARAMETER

ONNX_BFLOAT16: Final = 16
"""TensorProto.BFLOAT16, for which numpy has no dtype."""

_ACCELERATORS: Final = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeModel:
    """One session."""

    def __init__(self, session: ort.InferenceSession, model: ModelLoad) -> None:
        self._session: Any = session
        self._inputs = [(spec.name, spec.datatype) for spec in model.spec.inputs]
        self._outputs = [spec.name for spec in model.spec.outputs]
        self._bytes_outputs = [spec.datatype is DataType.BYTES for spec in model.spec.outputs]
        self._answers_bf16 = any(spec.datatype is DataType.BF16 for spec in model.spec.outputs)

    def run(self, inputs: Sequence[Array | None]) -> Sequence[Array]:
        """Run one batch; raises InvalidArgumentError with ONNX Runtime's own words where it refuses the shapes."""
        feeds = {
            name: self._feed(array, datatype)
            for (name, datatype), array in zip(self._inputs, inputs, strict=True)
            if array is not None
        }
        try:
            outputs = self._run(feeds)
        except (ort.capi.onnxruntime_pybind11_state.InvalidArgument, ValueError) as error:
            # Its Python layer has ValueError for an input left out that the file requires.
            raise InvalidArgumentError(f"ONNX Runtime refuses the inputs: {_one_line(error)}") from error
        except Exception as error:
            raise InternalError(f"ONNX Runtime failed: {_one_line(error)}") from error
        return [
            _encoded(output) if is_bytes else np.asarray(output)
            for output, is_bytes in zip(outputs, self._bytes_outputs, strict=True)
        ]

    def close(self) -> None:
        """Drop the session, and with it its arena."""
        self._session = None

    def _run(self, feeds: dict[str, Any]) -> Sequence[Any]:
        if not self._answers_bf16:
            outputs: Sequence[Any] = self._session.run(self._outputs, feeds)
            return outputs
        values = {
            name: feed if isinstance(feed, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(feed)
            for name, feed in feeds.items()
        }
        results = self._session.run_with_ort_values(self._outputs, values)
        return [_numpy(result) for result in results]

    def _feed(self, array: Array, datatype: DataType) -> Any:
        if datatype is DataType.BF16:
            return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, ONNX_BFLOAT16)
        if datatype is DataType.BYTES:
            return _decoded(array)
        return array


class OnnxRuntimeBackend:
    """Creates sessions that use the worker's device and nothing else."""

    def load(self, model: ModelLoad) -> OnnxRuntimeModel:
        """Create the session.

        Raises:
            FailedPreconditionError: the file does not load or lacks an input or output of the configuration, or the
                device's execution provider is not there.
            UnimplementedError: the model takes BYTES and answers BF16, or is to run in a precision that its file
                does not have.
        """
        _check_precision(model)
        options = session_options(model)
        providers = execution_providers(model)
        try:
            session = ort.InferenceSession(str(model.path), options, providers=providers)
        except ErgError:
            raise
        except Exception as error:
            raise FailedPreconditionError(
                f"ONNX Runtime does not load {model.path.name}: {_one_line(error)}"
            ) from error
        # A provider that cannot start makes ONNX Runtime fall back to the CPU with a line on standard error only.
        wanted = providers[0][0]
        if wanted not in session.get_providers():
            raise FailedPreconditionError(
                f"{wanted} did not start on {model.device.name}; ONNX Runtime would have used "
                f"{session.get_providers()} instead"
            )
        _check_names(session, model)
        _check_bf16(model)
        return OnnxRuntimeModel(session, model)


def _check_precision(model: ModelLoad) -> None:
    """Raises UnimplementedError for bf16 at run time, which would be f32 without a word."""
    if model.spec.parameters.get(PRECISION_PARAMETER) == "bf16":
        raise UnimplementedError(
            f"model '{model.name}': {PRECISION_PARAMETER} is bf16, and ONNX Runtime computes in what the file has; "
            "leave the parameter out, or use backend 'openvino'"
        )


def _check_names(session: ort.InferenceSession, model: ModelLoad) -> None:
    accepted = {item.name for item in (*session.get_inputs(), *session.get_overridable_initializers())}
    answered = {item.name for item in session.get_outputs()}
    for what, specs, names in (("input", model.spec.inputs, accepted), ("output", model.spec.outputs, answered)):
        for spec in specs:
            if spec.name not in names:
                raise FailedPreconditionError(
                    f"{model.path.name} has no {what} '{spec.name}' that the configuration names; "
                    f"it has {', '.join(sorted(names))}"
                )


def _check_bf16(model: ModelLoad) -> None:
    # An answer in BF16 only comes as an OrtValue, and ONNX Runtime makes none of strings to go with it.
    takes_bytes = any(spec.datatype is DataType.BYTES for spec in model.spec.inputs)
    if takes_bytes and any(spec.datatype is DataType.BF16 for spec in model.spec.outputs):
        raise UnimplementedError(
            f"{model.path.name} takes BYTES and answers BF16, which ONNX Runtime's Python interface cannot do at once: "
            "export the output as FP32"
        )


def session_options(model: ModelLoad) -> ort.SessionOptions:
    """One pool of as many threads as the worker has cores, none of which spins while it waits."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = model.device.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A spinning thread doubles the CPU used on a busy host, where it steals from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if model.config.optimization.HasField("graph"):
        level = model.config.optimization.graph.level
        options.graph_optimization_level = (
            ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            if level < 0
            else ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            if level == 1
            else ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        )
    return options


def execution_providers(model: ModelLoad) -> list[tuple[str, dict[str, str]]]:
    """The execution providers of the worker's device, the configured accelerators first.

    Raises:
        InvalidArgumentError: the configuration names an accelerator that this backend does not have.
    """
    if model.device.kind == "cpu":
        return [("CPUExecutionProvider", {})]
    providers: list[tuple[str, dict[str, str]]] = []
    for accelerator in model.config.optimization.execution_accelerators.gpu_execution_accelerator:
        provider = _ACCELERATORS.get(accelerator.name)
        if provider is None:
            raise InvalidArgumentError(
                f"model '{model.name}': gpu_execution_accelerator '{accelerator.name}' is not one of "
                f"{', '.join(sorted(_ACCELERATORS))}"
            )
        providers.append((provider, {**accelerator.parameters, "device_id": str(model.device.cuda_index)}))
    if all(name != "CUDAExecutionProvider" for name, _ in providers):
        providers.append(("CUDAExecutionProvider", {"device_id": str(model.device.cuda_index)}))
    return providers


def _decoded(array: Array) -> Array:
    texts = np.empty(array.shape, dtype=object)
    try:
        texts.ravel()[:] = [item.decode() for item in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"ONNX strings are UTF-8, and an element is not: {error}") from error
    return texts


def _encoded(array: Array) -> Array:
    raw = np.empty(array.shape, dtype=object)
    raw.ravel()[:] = [item.encode() if isinstance(item, str) else item for item in array.ravel().tolist()]
    return raw


def _numpy(value: Any) -> Array:
    if value.element_type() != ONNX_BFLOAT16:
        return np.asarray(value.numpy())
    size = int(np.prod(value.shape(), dtype=np.int64))
    # The value owns the memory, so the copy is taken while it lives.
    raw = ctypes.string_at(value.data_ptr(), size * 2)
    return np.frombuffer(raw, dtype=np.uint16).reshape(value.shape())


def _one_line(error: BaseException) -> str:
    """The whole text: what came and what was expected stand below the first line."""
    return " ".join(str(error).split())[:1000] or type(error).__name__
