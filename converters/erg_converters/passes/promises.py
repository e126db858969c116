"""The promises of every pass, checked on the file that it wrote: same signature, sound graph, one file, finite weights.

The idea of passes whose requirements and promises a base class checks is of onnx/ir-py's `PassBase`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from erg_server.errors import ErgError
from erg_server.repository.onnx_safety import read_onnx, tensors_of
from erg_server.repository.onnx_signature import OnnxSignature, OnnxTensor, signature_of

from erg_converters.artifact import Format
from erg_converters.errors import PromiseError

CANONICAL_OPSET = 18

_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml"})
_DOMAINS = {
    Format.ONNX: _STANDARD,
    Format.ONNX_QUANTIZED: _STANDARD,
    Format.ONNX_ORT: _STANDARD | {"com.microsoft"},
}
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, *_HALVES)
_QUANTIZED_OPERATORS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul",
     "QLinearConv"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """What a result has to keep.

    `inputs` are (name, datatype of the protocol, shape with -1 for dynamic axes) in order. `outputs` are (name,
    datatype, rank), None for what is not known; a source tells only `output_names`. `opset` is the one that the file
    came in, which a canonical file may keep.
    """

    inputs: tuple[tuple[str, str, tuple[int, ...]], ...]
    output_names: tuple[str, ...]
    outputs: tuple[tuple[str, str, int | None], ...] = ()
    opset: int | None = None


def promised_by_file(path: Path) -> Promised:
    """What a pass over the ONNX file at `path` has to keep; raises ErgError where it is none."""
    model = read_onnx(path)
    signature = signature_of(model)
    return Promised(
        inputs=tuple(
            (tensor.name, _datatype(tensor), tensor.shape or ())
            for tensor in signature.inputs
            if not tensor.has_default
        ),
        output_names=tuple(tensor.name for tensor in signature.outputs),
        outputs=tuple((tensor.name, _datatype(tensor), _rank(tensor)) for tensor in signature.outputs),
        opset=opset_of(model),
    )


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def check(path: Path, form: Format, promised: Promised) -> None:
    """Check the file at `path` against its format and against what it was made of.

    Raises:
        PromiseError: it is broken, in another form, or has another signature; the message names the first fault.
    """
    try:
        model = read_onnx(path)
        onnx.checker.check_model(model)
    except ErgError as error:
        raise PromiseError(error.message) from error
    except (onnx.checker.ValidationError, ValueError) as error:
        raise PromiseError(f"ONNX's checker refuses {path.name}: {str(error).splitlines()[0]}") from error
    _check_signature(model, promised)
    _check_tensors(model, form)
    _check_operators(model, form, promised)


def _check_signature(model: onnx.ModelProto, promised: Promised) -> None:
    signature = signature_of(model)
    inputs = _inputs(signature)
    if inputs != promised.inputs:
        raise PromiseError(f"the inputs became {_told(inputs)}; they have to stay {_told(promised.inputs)}")
    names = tuple(tensor.name for tensor in signature.outputs)
    if names != promised.output_names:
        raise PromiseError(f"the outputs became {_told(names)}; they have to stay {_told(promised.output_names)}")
    for tensor, (name, datatype, rank) in zip(signature.outputs, promised.outputs, strict=bool(promised.outputs)):
        found = _rank(tensor)
        if _datatype(tensor) != datatype:
            raise PromiseError(f"output '{name}' became {_datatype(tensor)}; it has to stay {datatype}")
        if None not in (rank, found) and rank != found:
            raise PromiseError(f"output '{name}' became {found}-dimensional; it has to stay {rank}-dimensional")


def _check_tensors(model: onnx.ModelProto, form: Format) -> None:
    for tensor in tensors_of(model):
        name = tensor.name or "(unnamed)"
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise PromiseError(f"weight '{name}' lies in another file; save the model as one file")
        if tensor.data_type not in _FLOATS:
            continue
        if form is Format.ONNX and tensor.data_type in _HALVES:
            raise PromiseError(f"weight '{name}' is half precision; the canonical form is fp32")
        values = onnx.numpy_helper.to_array(tensor)
        # A single infinity is a mask's fill value and meant; in a weight it is an overflow.
        if np.isnan(values).any() or (values.size > 1 and np.isinf(values).any()):
            raise PromiseError(f"weight '{name}' has values that are not finite")


def _check_operators(model: onnx.ModelProto, form: Format, promised: Promised) -> None:
    local = {function.domain for function in model.functions}
    for node in model.graph.node:
        if node.domain not in _DOMAINS[form] | local:
            raise PromiseError(f"operator {node.domain}.{node.op_type} ('{node.name}') has no place in {form}")
        if form is Format.ONNX and node.op_type in _QUANTIZED_OPERATORS:
            raise PromiseError(f"operator {node.op_type} ('{node.name}') is quantized; the canonical form is fp32")
    opset = opset_of(model)
    if form is Format.ONNX and opset not in (CANONICAL_OPSET, promised.opset):
        raise PromiseError(f"the file is at opset {opset}; the canonical form is at {CANONICAL_OPSET}")


def _inputs(signature: OnnxSignature) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    stated = [tensor for tensor in signature.inputs if not tensor.has_default]
    return tuple((tensor.name, _datatype(tensor), tensor.shape or ()) for tensor in stated)


def _datatype(tensor: OnnxTensor) -> str:
    return tensor.datatype.value if tensor.datatype is not None else tensor.type_name


def _rank(tensor: OnnxTensor) -> int | None:
    return None if tensor.shape is None else len(tensor.shape)


def _told(items: tuple[object, ...]) -> str:
    return ", ".join(str(item) for item in items) or "none"
