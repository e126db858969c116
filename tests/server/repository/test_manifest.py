import json
from pathlib import Path

import numpy as np
import pytest
from erg_server.datatype import DataType
from erg_server.repository.manifest import (
    Accuracy,
    Artifact,
    FileDigest,
    Golden,
    Manifest,
    ManifestError,
    Measurement,
    PassRecord,
    Selection,
    Source,
    Verdict,
    digest_files,
    dump_manifest,
    load_manifest,
    verify_files,
)
from erg_server.tensor import Tensor
from hypothesis import given
from hypothesis import strategies as st

TENSORS = (
    Tensor.from_numpy("x", np.arange(6, dtype=np.float32).reshape(2, 3)),
    Tensor.from_numpy("s", np.array([b"a", b""], dtype=object)),
    Tensor("e", DataType.INT64, (0, 4), b""),
)
FULL = Manifest(
    model="m",
    created="2026-01-02T03:04:05+00:00",
    erg_version="0.1",
    recipe_sha256="ab",
    source=Source(kind="transformers", location="package:x", sha256="cd", license="MIT"),
    passes=(PassRecord(name="export", settings={"opset": "18"}, tools={"torch": "2"}, seconds=1.5),),
    accuracy=(
        Accuracy(metric="cosine", value=0.999, low=0.998, high=1.0, samples=10, baseline=1.0),
        Accuracy(
            metric="top1",
            value=0.9,
            low=0.8,
            high=0.95,
            samples=50,
            variant="int8",
            drop=-0.01,
            drop_low=-0.02,
            drop_high=0.001,
        ),
    ),
    measurements=(
        Measurement(device="cpu", backend="onnxruntime", batch_size=4, latency_ms_p50=1.0, throughput_per_s=2.5),
        Measurement(
            device="cpu",
            backend="openvino",
            batch_size=8,
            latency_ms_p50=1.0,
            throughput_per_s=8000.0,
            variant="int8",
            precision="bf16",
            length=128,
            threads=2,
            cpu_ms_per_row=0.12,
            cpu_ratio=3.1,
        ),
    ),
    verdicts=(
        Verdict(variant="int8", device="cpu", batch_size=8, length=128, verdict="worth it", reason="3.1 x, at least 2"),
        Verdict(variant="int4", device="gpu", batch_size=1, verdict="refused", reason="cosine 0.9, at least 0.99"),
    ),
    artifacts=(
        Artifact(name="source", file="model.onnx", backend="onnxruntime"),
        Artifact(
            name="int8",
            file="int8/model.onnx",
            backend="openvino",
            precision="bf16",
            parameters={"PERFORMANCE_HINT": "LATENCY"},
            batch_limit=8,
            bytes=7,
        ),
    ),
    selected=(
        Selection(device="cpu", artifact="int8", reason="3.1 x cheaper"),
        Selection(device="cpu", artifact="source"),
    ),
    golden=Golden(inputs=TENSORS[:1], outputs=TENSORS[1:]),
    files={"model.onnx": FileDigest(sha256="0" * 64, bytes=7)},
)


def save(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)


def test_a_manifest_survives_the_disk(tmp_path: Path) -> None:
    assert load_manifest(tmp_path) is None
    save(tmp_path, dump_manifest(FULL))
    loaded = load_manifest(tmp_path)
    assert loaded is not None
    assert dump_manifest(loaded) == dump_manifest(FULL)
    assert loaded.golden is not None
    assert [tensor.data for tensor in loaded.golden.outputs] == [bytes(tensor.data) for tensor in TENSORS[1:]]


def test_a_manifest_from_before_artifacts_has_none(tmp_path: Path) -> None:
    early = {
        key: value
        for key, value in json.loads(dump_manifest(FULL)).items()
        if key not in {"artifacts", "selected", "verdicts"}
    }
    later_fields = ("variant", "precision", "length", "threads", "cpu_ms_per_row", "cpu_ratio")
    early["measurements"] = [{k: v for k, v in each.items() if k not in later_fields} for each in early["measurements"]]
    save(tmp_path, json.dumps(early))
    loaded = load_manifest(tmp_path)
    assert loaded is not None
    assert (loaded.artifacts, loaded.selected, loaded.verdicts) == ((), (), ())
    assert (loaded.measurements[0].threads, loaded.measurements[0].cpu_ratio) == (1, None)


@given(st.text(max_size=20), st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.floats(allow_nan=False))
def test_any_text_and_figure_survives(tmp_path_factory, name: str, settings: dict[str, str], seconds: float) -> None:
    if abs(seconds) == float("inf"):
        return
    folder = tmp_path_factory.getbasetemp()
    manifest = Manifest(model=name, passes=(PassRecord(name=name, settings=settings, seconds=seconds),))
    save(folder, dump_manifest(manifest))
    assert load_manifest(folder) == manifest


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format_version": 2}, "format_version is 2; this Erg reads 1"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"model": None}, "model should be str"),
        ({"passes": [{"name": "a", "sesttings": {}}]}, r"unknown key 'passes\[0\].sesttings'"),
        ({"passes": [{}]}, r"'passes\[0\].name' is missing"),
        ({"passes": {}}, "should be a list"),
        ({"files": {"a": {"sha256": "x", "bytes": True}}}, "files.a.bytes should be int"),
        ({"files": []}, "should be an object"),
        ({"golden": {"inputs": [{"name": "x"}], "outputs": []}}, "should be a tensor"),
        (
            {"golden": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": "AAAA"}], "outputs": []}},
            "data for",
        ),
        (
            {"golden": {"inputs": [{"name": "x", "datatype": "FP33", "shape": [], "data": ""}], "outputs": []}},
            "unknown datatype",
        ),
        ({"measurements": [{"energy_source": "guessed"}]}, "'measurements"),
        ({"artifacts": [{"name": "a", "file": "f"}]}, r"'artifacts\[0\].backend' is missing"),
        (
            {"artifacts": [{"name": "a", "file": "f", "backend": "b", "batch_limit": 1.5}]},
            r"artifacts\[0\].batch_limit should be int",
        ),
        ({"selected": [{"device": "tpu", "artifact": "a"}]}, "device is 'tpu'; allowed: cpu, gpu"),
        (
            {"verdicts": [{"variant": "a", "device": "cpu", "batch_size": 1, "verdict": "maybe"}]},
            "verdict is 'maybe'; allowed: worth it, not worth it, refused",
        ),
    ],
)
def test_what_is_no_manifest_is_told_with_its_key(tmp_path: Path, change: dict, told: str) -> None:
    save(tmp_path, json.dumps({**json.loads(dump_manifest(FULL)), **change}))
    with pytest.raises(ManifestError, match=told):
        load_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 100_000])
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    save(tmp_path, text)
    with pytest.raises(ManifestError):
        load_manifest(tmp_path)


def test_a_link_in_the_manifests_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").symlink_to("/etc/hostname")
    with pytest.raises(ManifestError):
        load_manifest(tmp_path)


@pytest.fixture
def version(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "data" / "w").write_bytes(b"weights")
    return tmp_path


def test_files_are_those_that_were_digested(version: Path) -> None:
    manifest = Manifest(model="m", files=digest_files(version))
    save(version, dump_manifest(manifest))
    assert set(manifest.files) == {"model.onnx", "data/w"}
    verify_files(version, manifest)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda v: (v / "model.onnx").write_bytes(b"mobel"), "has sha256"),
        (lambda v: (v / "model.onnx").write_bytes(b"model!"), "has 6 bytes; the manifest says 5"),
        (lambda v: (v / "data" / "w").unlink(), "is not in"),
        (lambda v: (v / "more").write_bytes(b""), "does not name: more"),
        (lambda v: (v / "more").symlink_to("model.onnx"), "neither a file"),
    ],
)
def test_any_other_file_is_told(version: Path, damage, told: str) -> None:
    manifest = Manifest(model="m", files=digest_files(version))
    damage(version)
    with pytest.raises(ManifestError, match=told):
        verify_files(version, manifest)


def test_a_manifest_names_no_file_outside(version: Path) -> None:
    manifest = Manifest(model="m", files={"../x": FileDigest(sha256="", bytes=0)})
    with pytest.raises(ManifestError):
        verify_files(version, manifest)
