import os
from pathlib import Path

import onnx
import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.repository.onnx_safety import check_external_data
from onnx import TensorProto, helper

from tests.server.repository.builders import external_tensor, relu


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "repo" / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "weights.bin").write_bytes(bytes(16))
    (tmp_path / "secret").write_bytes(bytes(16))
    return folder


def check(folder: Path, tensor: onnx.TensorProto) -> None:
    model = relu()
    model.graph.initializer.append(tensor)
    check_external_data(model, folder / "model.onnx")


def test_data_beside_the_file_passes(folder: Path) -> None:
    check(folder, external_tensor("weights.bin", offset="4", length="12"))


@pytest.mark.parametrize(
    "location",
    ["", "../../../secret", "/etc/passwd", "a/../../secret", "missing.bin", ".", "weights.bin\0", "*/_ORT_MEM_ADDR_/*"],
)
def test_data_elsewhere_is_refused(folder: Path, location: str) -> None:
    with pytest.raises(InvalidArgumentError, match="external data of tensor 'w'"):
        check(folder, external_tensor(location))


def test_links_out_of_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "soft").symlink_to(tmp_path / "secret")
    (folder / "above").symlink_to(tmp_path)
    os.link(tmp_path / "secret", folder / "hard")
    for location, told in (("soft", "symbolic link"), ("above/secret", "symbolic link"), ("hard", "names of its file")):
        with pytest.raises(InvalidArgumentError, match=told):
            check(folder, external_tensor(location))


@pytest.mark.parametrize(
    "properties",
    [{"offset": "-1"}, {"offset": "8", "length": "9"}, {"length": "-1"}, {"offset": "x"}, {"offset": "17"}],
)
def test_ranges_outside_the_file_are_refused(folder: Path, properties: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError):
        check(folder, external_tensor("weights.bin", **properties))


def test_a_property_given_twice_is_refused(folder: Path) -> None:
    tensor = external_tensor("weights.bin")
    tensor.external_data.add(key="location", value="../secret")
    with pytest.raises(InvalidArgumentError, match="twice"):
        check(folder, tensor)


def test_a_location_counts_even_where_the_tensor_claims_to_be_whole(folder: Path) -> None:
    tensor = external_tensor("/etc/passwd")
    tensor.data_location = onnx.TensorProto.DEFAULT
    with pytest.raises(InvalidArgumentError):
        check(folder, tensor)


def in_sparse_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.sparse_initializer.add().indices.CopyFrom(tensor)


def in_constant(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_list_attribute(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node.add().attribute.add(name="a").tensors.append(tensor)


def in_sparse_attribute(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node.add().attribute.add(name="a").sparse_tensor.values.CopyFrom(tensor)


def in_nested_subgraph(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    inner = onnx.GraphProto()
    inner.initializer.append(tensor)
    outer = onnx.GraphProto()
    outer.node.add().attribute.add(name="else_branch").g.CopyFrom(inner)
    model.graph.node.add().attribute.add(name="then_branch").graphs.append(outer)


def in_function(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.functions.add().node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_function_default(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.functions.add().attribute_proto.add(name="a").t.CopyFrom(tensor)


def in_subgraph_of_function(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.functions.add().node.add().attribute.add(name="body").g.initializer.append(tensor)


def in_training_graph(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


@pytest.mark.parametrize(
    "place",
    [
        in_sparse_initializer,
        in_constant,
        in_list_attribute,
        in_sparse_attribute,
        in_nested_subgraph,
        in_function,
        in_function_default,
        in_subgraph_of_function,
        in_training_graph,
    ],
)
def test_no_place_in_a_model_hides_a_tensor(folder: Path, place) -> None:
    model = relu()
    place(model, external_tensor("/etc/passwd"))
    with pytest.raises(InvalidArgumentError, match="external data"):
        check_external_data(model, folder / "model.onnx")


@pytest.mark.parametrize(("location", "ok"), [("weights.bin", True), ("/etc/passwd", False)])
def test_compiled_engines_beside_the_model_are_held_to_the_same(folder: Path, location: str, ok: bool) -> None:
    model = relu(elem_type=TensorProto.FLOAT)
    model.graph.node.append(helper.make_node("EPContext", [], [], embed_mode=0, ep_cache_context=location))
    if ok:
        check_external_data(model, folder / "model.onnx")
        return
    with pytest.raises(InvalidArgumentError):
        check_external_data(model, folder / "model.onnx")
