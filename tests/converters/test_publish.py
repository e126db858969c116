"""Publication: which files lie in a version, what its manifest and configuration say, what a failure leaves."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from erg_converters.artifact import Artifact, Format
from erg_converters.errors import ConversionError
from erg_converters.publish import Publication, Variant, golden_sample, publish_version
from erg_converters.serving_config import best_batch, check_config_place, derive_config, read_config
from erg_converters.settings import PublishSettings
from erg_server.errors import AlreadyExistsError
from erg_server.pb import model_config_pb2 as pb
from erg_server.repository.manifest import Manifest, Measurement, Source, load_manifest
from google.protobuf import text_format

from tests.converters.builders import IMAGE_SPECS, TOKEN_SPECS, images, tokens


def variant(name: str, path: Path, backend: str = "onnxruntime", precision: str = "f32") -> Variant:
    made = Artifact.of(Format.ONNX, path)
    return Variant(name=name, path=path, backend=backend, precision=precision, sha256=made.sha256, bytes=made.bytes)


def measured(name: str, batch_size: int, cpu_ms_per_row: float) -> Measurement:
    return Measurement(
        device="cpu", backend="onnxruntime", batch_size=batch_size, latency_ms_p50=1.0, throughput_per_s=1.0,
        variant=name, cpu_ms_per_row=cpu_ms_per_row,
    )  # fmt: skip


def publication(root: Path, source: Variant, winner: Variant, **changes: Any) -> Publication:
    values: dict[str, Any] = {
        "settings": PublishSettings(repository=str(root), name="cnn"),
        "source": source,
        "winner": winner,
        "reason": "3.1 times cheaper",
        "origin": Source(kind="torch", location="tests", sha256="d" * 64),
        "passes": (),
        "recipe_sha256": "r",
        "calibration_sha256": "",
        "golden": None,
        "measurements": tuple(measured(name, 1, 1.0) for name in ("source", "int8"))
        + tuple(measured(name, 8, 0.5) for name in ("source", "int8")),
    }
    return Publication(**{**values, **changes})


@pytest.fixture
def other_file(tiny_cnn_onnx: Path, tmp_path: Path) -> Path:
    model = onnx.load(str(tiny_cnn_onnx))
    model.producer_name = "a pass"
    path = tmp_path / "int8.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def manifest_of(version: Path) -> Manifest:
    manifest = load_manifest(version)
    assert manifest is not None
    return manifest


def test_the_winner_lies_beside_the_plain_file_and_is_preferred(
    tiny_cnn_onnx: Path, other_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    made = publication(root, variant("source", tiny_cnn_onnx), variant("int8", other_file, "openvino"))
    version = publish_version(made, IMAGE_SPECS, None)
    assert sorted(path.name for path in version.iterdir()) == ["int8.onnx", "manifest.json", "model.onnx"]
    manifest = manifest_of(version)
    assert [(each.name, each.file, each.backend) for each in manifest.artifacts] == [
        ("int8", "int8.onnx", "openvino"),
        ("source", "model.onnx", "onnxruntime"),
    ]
    assert [(each.device, each.artifact) for each in manifest.selected] == [("cpu", "int8"), ("cpu", "source")]
    assert manifest.selected[0].reason == "3.1 times cheaper"


def test_a_winner_that_runs_the_plain_file_adds_none(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    winner = variant("bf16", tiny_cnn_onnx, "openvino", "bf16")
    version = publish_version(publication(tmp_path / "r", variant("source", tiny_cnn_onnx), winner), IMAGE_SPECS, None)
    assert [(each.file, each.precision) for each in manifest_of(version).artifacts] == [
        ("model.onnx", "bf16"),
        ("model.onnx", "f32"),
    ]
    assert not (version / "bf16.onnx").exists()


def test_the_source_may_win(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    plain = variant("source", tiny_cnn_onnx)
    manifest = manifest_of(publish_version(publication(tmp_path / "r", plain, plain), IMAGE_SPECS, None))
    assert [each.name for each in manifest.artifacts] == ["source"]
    assert [each.artifact for each in manifest.selected] == ["source"]


def test_the_source_is_left_out_where_the_recipe_says_so(tiny_cnn_onnx: Path, other_file: Path, tmp_path: Path) -> None:
    settings = PublishSettings(repository=str(tmp_path / "r"), name="cnn", keep_source=False)
    made = publication(tmp_path, variant("source", tiny_cnn_onnx), variant("int8", other_file), settings=settings)
    version = publish_version(made, IMAGE_SPECS, None)
    assert sorted(path.name for path in version.iterdir()) == ["int8.onnx", "manifest.json"]


def test_the_derived_configuration_leaves_the_backend_to_the_manifest(tiny_bert_onnx: Path) -> None:
    text = derive_config("bert", onnx.load(str(tiny_bert_onnx)), TOKEN_SPECS, 32)
    config = text_format.Parse(text, pb.ModelConfig())
    assert (config.name, config.max_batch_size, config.backend) == ("bert", 32, "")
    assert config.HasField("dynamic_batching")
    assert [(each.name, list(each.dims)) for each in config.input] == [("input_ids", [-1]), ("attention_mask", [-1])]
    assert [(each.name, list(each.dims)) for each in config.output] == [("sentence_embedding", [32])]
    rules = [(each.name, each.axis, each.mask) for each in config.erg.padding.input]
    assert rules == [("input_ids", 1, False), ("attention_mask", 1, True)]


def test_a_model_without_a_mask_is_not_padded(tiny_cnn_onnx: Path) -> None:
    config = text_format.Parse(derive_config("cnn", onnx.load(str(tiny_cnn_onnx)), IMAGE_SPECS, 8), pb.ModelConfig())
    assert not config.erg.HasField("padding")
    assert list(config.input[0].dims) == [3, 16, 16]


def test_an_output_as_long_as_the_input_is_cut_again(tiny_bert_onnx: Path) -> None:
    model = onnx.load(str(tiny_bert_onnx))
    symbol = model.graph.input[0].type.tensor_type.shape.dim[1].dim_param
    shape: list[str | int | None] = ["batch", symbol, 32]
    model.graph.output.append(onnx.helper.make_tensor_value_info("hidden", onnx.TensorProto.FLOAT, shape))
    config = text_format.Parse(derive_config("bert", model, TOKEN_SPECS, 8), pb.ModelConfig())
    assert [(each.name, each.axis) for each in config.erg.padding.output] == [("hidden", 1)]


def test_the_largest_batch_that_still_gains_is_the_limit() -> None:
    costs = {1: 3.0, 8: 2.0, 32: 2.05, 64: 2.6}
    assert best_batch([measured("int8", size, cost) for size, cost in costs.items()], "int8") == 32
    assert best_batch([], "int8") == 1


def test_an_operators_configuration_stays(tiny_cnn_onnx: Path, other_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "repository"
    made = publication(root, variant("source", tiny_cnn_onnx), variant("int8", other_file))
    first = publish_version(made, IMAGE_SPECS, None)
    config = first.parent / "config.pbtxt"
    config.write_text('name: "cnn" max_batch_size: 3 # mine')
    second = publish_version(made, IMAGE_SPECS, None)
    assert (first.name, second.name) == ("1", "2")
    assert config.read_text() == 'name: "cnn" max_batch_size: 3 # mine'


def test_a_configuration_of_the_recipe_never_replaces_an_operators(
    tiny_cnn_onnx: Path, other_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    made = publication(root, variant("source", tiny_cnn_onnx), variant("int8", other_file))
    publish_version(made, IMAGE_SPECS, None)
    before = sorted(root.rglob("*"))
    with pytest.raises(ConversionError, match=r"differs from publish\.config"):
        check_config_place(made.settings, "name: 'other'")
    with pytest.raises(AlreadyExistsError):
        publish_version(made, IMAGE_SPECS, "name: 'other'")
    assert sorted(root.rglob("*")) == before


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"publish\.config: .*none\.pbtxt"):
        read_config(tmp_path / "none.pbtxt")


def test_a_full_disk_leaves_the_repository_as_it_was(
    tiny_cnn_onnx: Path, other_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "repository"
    made = publication(root, variant("source", tiny_cnn_onnx), variant("int8", other_file))
    publish_version(made, IMAGE_SPECS, None)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def full(source: Any, target: Any, _length: int) -> None:
        target.write(source.read(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        publish_version(made, IMAGE_SPECS, None)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert [path.name for path in root.iterdir()] == ["cnn"]


def test_a_golden_samples_tolerance_covers_a_server_that_answers_as_the_source() -> None:
    feed = tokens(2, 8)
    source = np.array([[0.5, 0.25]], np.float32)
    winner = source + np.array([[0.01, -0.02]], np.float32)
    golden = golden_sample(feed, ["embedding"], [winner], [source])
    assert golden is not None
    assert golden.absolute_tolerance == pytest.approx(0.04, rel=1e-4)
    assert golden.outputs[0].numpy().tolist() == winner.tolist()
    exact = golden_sample(feed, ["embedding"], [source], [source])
    assert exact is not None
    assert exact.absolute_tolerance == 1e-4


def test_a_golden_sample_too_large_for_a_manifest_is_left_out() -> None:
    feed = {"image": np.zeros((2, 3, 640, 640), np.float32)}
    assert golden_sample(feed, ["logits"], [np.zeros((2, 10), np.float32)], [np.zeros((2, 10), np.float32)]) is None
    assert golden_sample(images(2), ["logits"], [np.zeros((2, 10), np.float32)], [np.zeros((2, 10), np.float32)])
