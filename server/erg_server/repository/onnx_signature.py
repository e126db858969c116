"""What an ONNX file says of its own inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from erg_server.datatype import DataType

_DATATYPES: Mapping[int, DataType] = {
    onnx.TensorProto.BOOL: DataType.BOOL,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.UINT16: DataType.UINT16,
    onnx.TensorProto.UINT32: DataType.UINT32,
    onnx.TensorProto.UINT64: DataType.UINT64,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.INT16: DataType.INT16,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.FLOAT16: DataType.FP16,
    onnx.TensorProto.FLOAT: DataType.FP32,
    onnx.TensorProto.DOUBLE: DataType.FP64,
    onnx.TensorProto.STRING: DataType.BYTES,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxTensor:
    """An input or output of a graph. `datatype` is None for what requests cannot carry, `type_name` says what it is.

    `shape` is None where the file leaves even the rank open; -1 is any length. `has_default` marks an input that the
    graph itself can fill.
    """

    name: str
    datatype: DataType | None
    type_name: str
    shape: tuple[int, ...] | None
    has_default: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSignature:
    """The inputs and outputs of a graph, in its order."""

    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]


def signature_of(model: onnx.ModelProto) -> OnnxSignature:
    """The signature of a parsed model."""
    defaults = {tensor.name for tensor in model.graph.initializer}
    defaults |= {sparse.values.name for sparse in model.graph.sparse_initializer}
    return OnnxSignature(
        inputs=tuple(_tensor(value, has_default=value.name in defaults) for value in model.graph.input),
        outputs=tuple(_tensor(value, has_default=False) for value in model.graph.output),
    )


def _tensor(value: onnx.ValueInfoProto, *, has_default: bool) -> OnnxTensor:
    kind = value.type.WhichOneof("value") or "value of no type"
    if kind != "tensor_type":
        name = kind.removesuffix("_type").replace("_", " ")
        return OnnxTensor(name=value.name, datatype=None, type_name=name, shape=None, has_default=has_default)
    tensor = value.type.tensor_type
    shape: tuple[int, ...] | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else -1 for dim in tensor.shape.dim
        )
    known = tensor.elem_type in onnx.TensorProto.DataType.values()
    return OnnxTensor(
        name=value.name,
        datatype=_DATATYPES.get(tensor.elem_type),
        type_name=f"tensor of {onnx.TensorProto.DataType.Name(tensor.elem_type) if known else tensor.elem_type}",
        shape=shape,
        has_default=has_default,
    )
