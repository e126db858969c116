"""The layers found in a graph, and the graph made ready for the tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from erg_converters.errors import PassError
from erg_converters.passes.layers import has_attention, layers_of, named, prepare


def save(
    nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]], path: Path, opset: int = 18
) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return model


def test_layers_are_operators_with_a_constant_weight_and_know_what_an_output_element_costs(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    model = save(
        [
            make("MatMul", ["x", "wide"], ["a"], name="constant"),
            make("MatMul", ["a", "a"], ["b"], name="two activations"),
            make("Gemm", ["b", "tall"], ["c"], name="gemm", transB=1),
            make("Conv", ["c", "kernel"], ["y"], name="conv", group=2),
        ],
        {"wide": (4, 32), "tall": (8, 32), "kernel": (6, 3, 5, 5)},
        tmp_path / "model.onnx",
    )
    assert [(layer.name, layer.reads, layer.gives, layer.macs_per_output) for layer in layers_of(model)] == [
        ("constant", "x", "a", 4),
        ("gemm", "b", "c", 32),
        ("conv", "c", "y", 75),
    ]


def test_every_node_gets_a_name_of_its_own_and_constants_become_weights(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "inner")
    save(
        [
            make("Constant", [], ["w"], value=weight),
            make("MatMul", ["x", "w"], ["a"]),
            make("Relu", ["a"], ["b"], name="same"),
            make("Relu", ["b"], ["y"], name="same"),
        ],
        {},
        tmp_path / "model.onnx",
    )
    model = prepare(tmp_path / "model.onnx")
    names = [node.name for node in model.graph.node]
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Relu", "Relu"]
    assert all(names)
    assert len(set(names)) == 3
    assert [tensor.name for tensor in model.graph.initializer] == ["w"]
    assert [layer.name for layer in layers_of(model)] == names[:1]


def test_an_opset_without_scales_per_channel_is_left_behind(tmp_path: Path) -> None:
    save([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": (4, 4)}, tmp_path / "model.onnx", opset=11)
    assert prepare(tmp_path / "model.onnx").opset_import[0].version == 18


def test_an_opset_that_cannot_be_left_is_told(tmp_path: Path) -> None:
    save([onnx.helper.make_node("Dropout", ["x"], ["y"], is_test=0)], {}, tmp_path / "model.onnx", opset=6)
    with pytest.raises(PassError, match="the model is at opset 6 and ONNX's converter does not bring it to 18"):
        prepare(tmp_path / "model.onnx")


def test_attention_is_a_matmul_of_what_a_softmax_gives(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [make("Softmax", ["x"], ["p"]), make("MatMul", ["p", "x"], ["y"])]
    assert has_attention(save(nodes, {}, tmp_path / "attention.onnx"))
    nodes = [make("MatMul", ["x", "x"], ["p"]), make("Softmax", ["p"], ["y"])]
    assert not has_attention(save(nodes, {}, tmp_path / "classifier.onnx"))


def test_names_are_taken_whole_or_as_globs(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [make("Relu", ["x"], ["a"], name="/layer.0/fc[1]"), make("Relu", ["a"], ["y"], name="/layer.1/fc")]
    model = save(nodes, {}, tmp_path / "model.onnx")
    assert named(model, ()) == frozenset()
    assert named(model, ("/layer.0/fc[1]",)) == {"/layer.0/fc[1]"}
    assert named(model, ("/layer.?/*",)) == {"/layer.0/fc[1]", "/layer.1/fc"}
    with pytest.raises(PassError, match=r"no node is called '/layer\.2/fc'"):
        named(model, ("/layer.2/fc",))
