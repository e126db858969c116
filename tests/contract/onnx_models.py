"""Small ONNX models, built where a test needs them, and the loads that name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from erg_server.backends.base import ModelLoad
from erg_server.datatype import DataType
from erg_server.devices.device import Device
from erg_server.pb.model_config_pb2 import ModelConfig
from erg_server.repository.spec import ModelSpec, datatype_to_config
from google.protobuf import text_format
from onnx import TensorProto, helper

ONNX_TYPES = {
    DataType.BOOL: TensorProto.BOOL,
    DataType.UINT8: TensorProto.UINT8,
    DataType.UINT16: TensorProto.UINT16,
    DataType.UINT32: TensorProto.UINT32,
    DataType.UINT64: TensorProto.UINT64,
    DataType.INT8: TensorProto.INT8,
    DataType.INT16: TensorProto.INT16,
    DataType.INT32: TensorProto.INT32,
    DataType.INT64: TensorProto.INT64,
    DataType.FP16: TensorProto.FLOAT16,
    DataType.FP32: TensorProto.FLOAT,
    DataType.FP64: TensorProto.DOUBLE,
    DataType.BF16: TensorProto.BFLOAT16,
    DataType.BYTES: TensorProto.STRING,
}
WIDTH = 3
"""Columns of every row: small enough to write down, unlike any batch size that the tests use."""

Values = Sequence[tuple[str, DataType]]


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Values,
    outputs: Values,
    initializers: Sequence[onnx.TensorProto] = (),
) -> Path:
    """Write a model whose inputs and outputs are all of shape [N, WIDTH]."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [_value(*each) for each in inputs],
        [_value(*each) for each in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def _value(name: str, datatype: DataType) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, ONNX_TYPES[datatype], ["N", WIDTH])


def echo(path: Path, datatype: DataType) -> Path:
    """Answer y = x."""
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], [("x", datatype)], [("y", datatype)])


def two_echoes(path: Path, first: DataType, second: DataType) -> Path:
    """Answer p = a and q = b, with inputs and outputs declared the other way round."""
    nodes = [helper.make_node("Identity", ["a"], ["p"]), helper.make_node("Identity", ["b"], ["q"])]
    return save(path, nodes, [("b", second), ("a", first)], [("q", second), ("p", first)])


def cast(path: Path, source: DataType, target: DataType) -> Path:
    """Answer y, which is x in another datatype."""
    node = helper.make_node("Cast", ["x"], ["y"], to=ONNX_TYPES[target])
    return save(path, [node], [("x", source)], [("y", target)])


def shifted(path: Path) -> Path:
    """Answer y = x + offset in FP32, where `offset` may be left out: it is 0 then."""
    default = onnx.numpy_helper.from_array(np.zeros((1, WIDTH), np.float32), "offset")
    node = helper.make_node("Add", ["x", "offset"], ["y"])
    graph = helper.make_graph(
        [node],
        "graph",
        [_value("x", DataType.FP32), helper.make_tensor_value_info("offset", TensorProto.FLOAT, [1, WIDTH])],
        [_value("y", DataType.FP32)],
        [default],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def linear(path: Path, hidden: int = 64) -> Path:
    """Answer y = relu(x · A) · B in FP32; its two weights take 24 bytes for each hidden unit."""
    rng = np.random.default_rng(7)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("A", (WIDTH, hidden)), ("B", (hidden, WIDTH)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "B"], ["y"]),
    ]
    return save(path, nodes, [("x", DataType.FP32)], [("y", DataType.FP32)], weights)


def model_load(
    backend: str,
    path: Path,
    inputs: Values,
    outputs: Values,
    *,
    optional: Sequence[str] = (),
    device: Device | None = None,
    extra: str = "",
) -> ModelLoad:
    """What the worker would hand to a backend for a batching model of rows of WIDTH elements."""
    config = text_format.Parse(f'name: "subject" backend: "{backend}" max_batch_size: 8 {extra}', ModelConfig())
    for name, datatype in inputs:
        config.input.add(name=name, data_type=datatype_to_config(datatype), dims=[WIDTH], optional=name in optional)
    for name, datatype in outputs:
        config.output.add(name=name, data_type=datatype_to_config(datatype), dims=[WIDTH])
    return ModelLoad(
        name="subject",
        version=1,
        config=config,
        spec=ModelSpec.from_config(config),
        path=path,
        device=device or Device(kind="cpu", id=0, cores=(0,)),
    )
