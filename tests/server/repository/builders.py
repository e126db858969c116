"""Small ONNX models and repositories for the tests."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper

Shape = Sequence[int | str | None] | None

IDENTITY_CONFIG = """
backend: "identity"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }
"""


def relu(
    shape: Shape = ("batch", 3), elem_type: int = TensorProto.FLOAT, output_shape: Shape = ("batch", 3)
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", elem_type, shape)],
        [helper.make_tensor_value_info("y", elem_type, output_shape)],
    )
    return helper.make_model(graph)


def external_tensor(location: str, name: str = "w", **properties: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **properties}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def add_model(root: Path, name: str, model: onnx.ModelProto | None, config: str = "", version: int = 1) -> Path:
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    if model is not None:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
    if config:
        (root / name / "config.pbtxt").write_text(config)
    return root / name
