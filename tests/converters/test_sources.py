"""Sources: what loads, what is refused and why, and that no file's own code is run without leave."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from erg_converters.errors import SourceError, TrustError
from erg_converters.settings import ExportSettings, InputSettings, PublishSettings, Recipe, SourceSettings, Task
from erg_converters.sources.base import InputSpec, Source, random_feed
from erg_converters.sources.load import load_source
from erg_converters.sources.onnx_checks import read_checked
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.converters import builders

IMAGE = InputSettings(name="image", dims=(-1, 3, 16, 16))
FACTORY = """
from tests.converters import builders

def build():
    return builders.TinyCnn()

def build_from(checkpoint):
    import torch
    network = builders.TinyCnn()
    network.load_state_dict(torch.load(checkpoint, weights_only=True))
    return network

def nothing():
    return 3

def broken():
    raise OSError("no such checkpoint")
"""


def recipe(folder: Path, *inputs: InputSettings, task: Task = "", **source: Any) -> Recipe:
    return Recipe(
        path=folder / "recipe.toml",
        sha256="",
        source=SourceSettings(**source),
        publish=PublishSettings(repository="r", name="m"),
        export=ExportSettings(task=task),
        inputs=inputs,
    )


def load(folder: Path, *inputs: InputSettings, trust: bool = False, task: Task = "", **source: Any) -> Source:
    return load_source(recipe(folder, *inputs, task=task, **source), trust=trust)


def refused(folder: Path, *inputs: InputSettings, **source: Any) -> str:
    with pytest.raises(SourceError) as error:
        load(folder, *inputs, **source)
    return error.value.message


# transformers


def test_an_encoder_gives_embeddings_of_length_one_and_tells_its_limits(tmp_path, tiny_bert_folder):
    source = load(tmp_path, path=str(tiny_bert_folder), license="MIT")
    feed = random_feed(source.input_specs(), {"batch": 3, "length": 9}, seed=1)
    (embeddings,) = source.run(feed)
    assert embeddings.shape == (3, 32)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    assert source.output_names == ("sentence_embedding",)
    assert source.max_sizes == {"length": builders.MAX_LENGTH}
    assert (source.kind, source.license, source.file()) == ("transformers", "MIT", None)


def test_padding_does_not_change_an_embedding(tmp_path, tiny_bert_folder):
    source = load(tmp_path, path=str(tiny_bert_folder))
    ids = np.array([[2, 5, 6, 3]])
    alone = source.run({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
    padded = {"input_ids": np.pad(ids, [(0, 0), (0, 3)]), "attention_mask": np.array([[1, 1, 1, 1, 0, 0, 0]])}
    assert np.allclose(source.run(padded)[0], alone, atol=1e-6)


def test_features_and_token_types_come_when_they_are_asked_for(tmp_path, tiny_bert_folder):
    inputs = [
        InputSettings(name=name, datatype="INT64", dims=(-1, -1))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    source = load(tmp_path, *inputs, task="feature-extraction", path=str(tiny_bert_folder))
    feed = random_feed(source.input_specs(), {"batch": 2, "length": 5}, seed=1)
    assert source.run(feed)[0].shape == (2, 5, 32)
    assert source.output_names == ("last_hidden_state",)
    assert source.digest() != load(tmp_path, path=str(tiny_bert_folder)).digest()


def test_a_folder_that_lacks_something_is_refused(tmp_path, tiny_bert_folder):
    assert "there is no folder" in refused(tmp_path, path="missing")
    assert "config.json and *.safetensors" in refused(tmp_path, path=str(tmp_path))
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_bert_folder, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled weights (*.bin) are not read" in refused(tmp_path, path="pickled")
    assert "an encoder's inputs are" in refused(
        tmp_path, InputSettings(name="ids", dims=(-1, -1)), path=str(tiny_bert_folder)
    )


def test_a_folders_own_code_is_not_run(tmp_path, tiny_bert_folder):
    folder = tmp_path / "coded"
    shutil.copytree(tiny_bert_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    assert "transformers does not load it" in refused(tmp_path, path="coded")
    assert not (tmp_path / "ran").exists()


def test_a_hubs_name_is_not_asked_for_where_the_environment_forbids_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE forbids the hub" in refused(tmp_path, path="organisation/name")


# PyTorch


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    """A recipe's folder with a factory module and weights for it, as a state dict in both forms."""
    (tmp_path / "erg_factory.py").write_text(FACTORY)
    state = builders.tiny_cnn().state_dict()
    torch.save(state, tmp_path / "state.pt")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "training.pt")
    safetensors.torch.save_file(state, tmp_path / "state.safetensors")
    return tmp_path


def answer(source: Source) -> np.ndarray:
    return np.asarray(source.run(builders.images(2))[0])


@pytest.mark.parametrize(
    "source",
    [
        {"factory": "erg_factory:build", "weights": "state.pt"},
        {"factory": "erg_factory:build", "weights": "training.pt"},
        {"factory": "erg_factory:build", "weights": "state.safetensors"},
        {"factory": "erg_factory:build_from", "path": "state.pt"},
    ],
)
def test_a_factory_with_its_weights_computes_what_the_module_did(factory, source):
    loaded = load(factory, IMAGE, kind="torch", **source)
    with torch.no_grad():
        expected = builders.tiny_cnn()(torch.from_numpy(builders.images(2)["image"])).numpy()
    assert np.array_equal(answer(loaded), expected)
    assert not loaded.module().training
    assert loaded.output_names == ("output",)
    assert loaded.digest() == load(factory, IMAGE, kind="torch", **source).digest()


def test_the_digest_changes_with_a_weight(factory):
    settings: dict[str, Any] = {"kind": "torch", "factory": "erg_factory:build", "weights": "state.safetensors"}
    before = load(factory, IMAGE, **settings).digest()
    state = builders.tiny_cnn().state_dict()
    state["layers.6.bias"][0] += 1e-3
    safetensors.torch.save_file(state, factory / "state.safetensors")
    assert load(factory, IMAGE, **settings).digest() != before


class Touching:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_a_pickle_of_more_than_tensors_is_not_loaded_without_trust(factory):
    ran = factory / "ran"
    torch.save({"state_dict": Touching(ran)}, factory / "hostile.pt")
    with pytest.raises(TrustError, match="--trust"):
        load(factory, IMAGE, kind="torch", factory="erg_factory:build", weights="hostile.pt")
    assert not ran.exists()


def test_a_pickled_module_loads_with_trust_and_only_then(factory):
    torch.save(builders.tiny_cnn(), factory / "module.pt")
    with pytest.raises(TrustError, match="loading it runs whatever code is inside"):
        load(factory, IMAGE, kind="torch", weights="module.pt")
    trusted = load(factory, IMAGE, kind="torch", weights="module.pt", trust=True)
    plain = load(factory, IMAGE, kind="torch", factory="erg_factory:build", weights="state.pt")
    assert np.array_equal(answer(trusted), answer(plain))


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"factory": "erg_factory:nothing"}, "returned a int, no torch module"),
        ({"factory": "erg_factory:broken"}, "failed: OSError: no such checkpoint"),
        ({"factory": "erg_factory:missing"}, "has no function 'missing'"),
        ({"factory": "erg_no_factory:f"}, "importing erg_no_factory failed"),
        ({"factory": "erg_factory:build", "path": "state.pt"}, "takes no argument: leave source.path out"),
        ({"factory": "erg_factory:build", "weights": "no.pt"}, "there is no file"),
        ({"factory": "erg_factory:build", "weights": "junk.pt"}, "junk.pt"),
        ({"factory": "erg_factory:build", "weights": "junk.safetensors"}, "is no safetensors file"),
        ({"factory": "erg_factory:build", "weights": "other.safetensors"}, "does not fit the factory's module"),
        ({"weights": "state.pt"}, "holds weights and no module"),
    ],
)
def test_what_does_not_load_is_told_with_its_cause(factory, source, told):
    for name in ("junk.pt", "junk.safetensors"):
        (factory / name).write_bytes(pickle.dumps(b"junk")[:5])
    safetensors.torch.save_file({"x": torch.zeros(1)}, factory / "other.safetensors")
    assert told in refused(factory, IMAGE, kind="torch", **source)


def test_inputs_that_the_module_does_not_take_are_told(factory):
    wrong = InputSettings(name="image", dims=(-1, 4, 16, 16))
    assert "does not run on the recipe's inputs" in refused(factory, wrong, kind="torch", factory="erg_factory:build")


# ONNX


def weight(name: str = "w", dims: tuple[int, ...] = (4, 4)) -> TensorProto:
    return onnx.numpy_helper.from_array(np.ones(dims, np.float32), name)


def model(
    nodes: list[onnx.NodeProto] | None = None,
    weights: list[TensorProto] | None = None,
    shape: Any = ("n", 4),
    **rest: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes if nodes is not None else [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * max(len(shape), 2))],
        weights if weights is not None else [weight()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **rest)


def save(folder: Path, proto: onnx.ModelProto) -> dict[str, Any]:
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return {"kind": "onnx", "path": "m.onnx"}


def test_an_onnx_file_tells_its_inputs_and_runs(tmp_path):
    source = load(tmp_path, **save(tmp_path, model()))
    assert source.input_specs() == (InputSpec(name="x", datatype="FP32", dims=(-1, 4), axes=("batch",)),)
    assert source.run({"x": np.ones((2, 4), np.float32)})[0].tolist() == [[4.0] * 4] * 2
    assert source.file() == tmp_path / "m.onnx"
    with pytest.raises(SourceError, match="no module to export"):
        source.module()


def test_axes_of_an_onnx_file_are_named_by_it_or_by_the_recipe(tmp_path):
    shape = ("n", "seq_len", "?", "height")
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    settings = save(tmp_path, model(nodes, [], shape))
    assert load(tmp_path, **settings).input_specs()[0].axes == ("batch", "length", "x_2", "height")
    stated = InputSettings(name="x", dims=(-1, -1, -1, -1), axes=("batch", "a", "b", "c"), pad_value=2.0)
    (spec,) = load(tmp_path, stated, **settings).input_specs()
    assert (spec.axes, spec.pad_value) == (("batch", "a", "b", "c"), 2.0)
    assert "is FP32 [-1, -1, -1, -1], not" in refused(tmp_path, InputSettings(name="x", dims=(-1, 2)), **settings)
    assert "has no input 'z'" in refused(tmp_path, InputSettings(name="z", dims=(-1,)), **settings)


def call(domain: str, name: str) -> onnx.NodeProto:
    return helper.make_node(name, ["x"], ["y"], domain=domain, name="the_node")


def function(name: str, *called: str) -> onnx.FunctionProto:
    nodes = [helper.make_node(each, ["a"], [f"b{i}"], domain="own") for i, each in enumerate(called)]
    nodes.append(helper.make_node("Identity", ["a"], ["c"]))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["c"], nodes, opsets)


def declaring(dims: tuple[int, ...]) -> TensorProto:
    tensor = weight()
    tensor.dims[:] = dims
    return tensor


def cycle() -> list[onnx.NodeProto]:
    return [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["x", "a"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"])]  # fmt: skip


def bomb() -> onnx.ModelProto:
    """Thirty functions, each of which calls the one before it twice."""
    functions = [function("f0"), *(function(f"f{i}", f"f{i - 1}", f"f{i - 1}") for i in range(1, 30))]
    return model([call("own", "f29")], [], functions=functions)


def built(size: int) -> onnx.ModelProto:
    shape = onnx.numpy_helper.from_array(np.array([size, size], np.int64), "s")
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    return model(nodes, [shape])


def summed() -> list[onnx.NodeProto]:
    return [helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0), helper.make_node("Add", ["x", "r"], ["y"])]


def multiplied() -> onnx.ModelProto:
    """A shape that the graph computes: 4096 x 4096 along each of two axes."""
    side = onnx.numpy_helper.from_array(np.array([1 << 12, 1 << 12], np.int64), "side")
    nodes = [helper.make_node("Mul", ["side", "side"], ["s"]), helper.make_node("ConstantOfShape", ["s"], ["c"])]
    return model([*nodes, *summed()], [side])


def counted() -> onnx.ModelProto:
    """A range of ten thousand million numbers out of three."""
    ends = [
        onnx.numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("from", 0), ("to", 1e10), ("by", 1))
    ]
    nodes = [helper.make_node("Range", ["from", "to", "by"], ["c"])]
    return model([*nodes, *summed()], ends)


@pytest.mark.parametrize(
    ("proto", "told"),
    [
        (model([call("own", "Secret")], []), "operator own.Secret (node 'the_node') is unknown"),
        (model([call("", "Identitee")], []), "operator ai.onnx.Identitee (node 'the_node') is unknown"),
        (model([call("com.microsoft", "Gelu")], []), "is ONNX Runtime's own; start from the model as it was before"),
        (model(cycle(), []), "there is a cycle, or the nodes are out of order"),
        (model(weights=[declaring((1 << 20, 1 << 20))]), "tensor 'w' declares [1048576, 1048576]"),
        (model(weights=[declaring((4, -4))]), "tensor 'w' has a negative size"),
        (bomb(), "with its functions written out it has"),
        (model([call("own", "a")], [], functions=[function("a", "b"), function("b", "a")]), "calls itself"),
        (built(1 << 20), "ConstantOfShape '' builds a tensor of [1048576, 1048576]"),
        (multiplied(), "tensor 'c' would have [16777216, 16777216]; at most"),
        (counted(), "tensor 'c' would have [10000000000]; at most"),
        (model(shape=(3, 4)), "has a fixed batch of 3"),
        (model([helper.make_node("Identity", ["w"], ["y"])], shape=()), "is a scalar"),
    ],
)  # fmt: skip
def test_a_hostile_or_broken_file_is_refused_with_its_cause(tmp_path, proto, told):
    assert told in refused(tmp_path, **save(tmp_path, proto))


def test_a_small_constant_shape_is_no_bomb(tmp_path):
    assert load(tmp_path, **save(tmp_path, built(4))).run({"x": np.ones((4, 4), np.float32)})


_FLIPS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6)


@given(flips=_FLIPS, which=st.sampled_from(["weights", "functions", "shape", "external"]))
def test_a_damaged_file_raises_nothing_but_a_source_error(flips, which):
    proto = {
        "weights": model(),
        "functions": model([call("own", "f1")], [], functions=[function("f0"), function("f1", "f0", "f0")]),
        "shape": built(4),
        "external": external("w.bin", offset=0, length=64),
    }[which]
    raw = bytearray(proto.SerializeToString())
    for position, value in flips:
        raw[position % len(raw)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(raw)
        (path.parent / "w.bin").write_bytes(bytes(64))
        with contextlib.suppress(SourceError):
            read_checked(path)


def test_a_file_that_is_no_onnx_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\xff" * 40)
    assert "is not an ONNX model" in refused(tmp_path, kind="onnx", path="m.onnx")
    assert "there is no file" in refused(tmp_path, kind="onnx", path="n.onnx")


def external(location: str, **values: int) -> onnx.ModelProto:
    tensor = weight()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **values}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model(weights=[tensor])


def test_external_data_beside_the_file_is_part_of_the_model(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.full((4, 4), 2, np.float32).tobytes())
    source = load(tmp_path, **save(tmp_path, external("w.bin")))
    assert source.run({"x": np.ones((1, 4), np.float32)})[0].tolist() == [[8.0] * 4]
    before = source.digest()
    (tmp_path / "w.bin").write_bytes(np.full((4, 4), 3, np.float32).tobytes())
    assert load(tmp_path, **save(tmp_path, external("w.bin"))).digest() != before


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "link.bin", "missing.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    assert "external data" in refused(folder, **save(folder, external(location)))


def test_external_data_of_another_size_than_declared_is_refused(tmp_path):
    (tmp_path / "w.bin").write_bytes(bytes(128))
    assert "64 bytes, and has 128" in refused(tmp_path, **save(tmp_path, external("w.bin")))
    assert "wants bytes" in refused(tmp_path, **save(tmp_path, external("w.bin", offset=100, length=64)))
