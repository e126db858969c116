"""Export from a module and from an ONNX file, and the comparison with the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers
from erg_converters.artifact import Artifact, Format
from erg_converters.errors import ParityError, PassError
from erg_converters.passes.base import PassContext
from erg_converters.passes.export_onnx import ExportOnnx, ExportSettings
from erg_converters.passes.parity import parity_sizes

from tests.converters import builders
from tests.converters.builders import IMAGE_SPECS, TOKEN_SPECS, ModuleSource


def run(source: ModuleSource, folder: Path, settings: ExportSettings | None = None) -> tuple[Artifact, dict[str, str]]:
    given = Artifact(format=Format.SOURCE, path=folder, sha256=source.digest(), bytes=0)
    step = ExportOnnx(settings or ExportSettings())
    context = PassContext(source=source, inputs=source.input_specs(), folder=folder / "work")
    return step.run(given, context), step.figures


def cnn_source(file: Path | None = None, answer: Any = None) -> ModuleSource:
    return ModuleSource(None if file else builders.tiny_cnn(), IMAGE_SPECS, "logits", file=file, answer=answer)


def ort_answer(path: Path) -> Any:
    session = onnxruntime.InferenceSession(str(path))
    return lambda feed: session.run(None, dict(feed))


@pytest.fixture(scope="module")
def bert_source(tiny_bert_folder: Path) -> ModuleSource:
    bert = transformers.AutoModel.from_pretrained(tiny_bert_folder, attn_implementation="eager", dtype=torch.float32)
    return ModuleSource(builders.TinyEncoder(bert).eval(), TOKEN_SPECS, "sentence_embedding")


def test_a_module_exports_with_dynamic_axes_and_the_sources_answers(bert_source: ModuleSource, tmp_path: Path) -> None:
    artifact, figures = run(bert_source, tmp_path)
    assert artifact.format is Format.ONNX
    assert float(figures["largest difference"]) < 1e-4
    feed = builders.tokens(3, 11)
    got = onnxruntime.InferenceSession(str(artifact.path)).run(None, feed)[0]
    np.testing.assert_allclose(got, bert_source.run(feed)[0], atol=1e-5)


def test_the_file_is_one_without_traces_of_this_machine(bert_source: ModuleSource, tmp_path: Path) -> None:
    artifact, _ = run(bert_source, tmp_path)
    assert [path.name for path in artifact.path.parent.iterdir()] == ["model.onnx"]
    assert b".py" not in artifact.path.read_bytes()


def test_two_exports_of_one_module_are_the_same_file(tmp_path: Path) -> None:
    one, _ = run(cnn_source(), tmp_path / "a")
    other, _ = run(cnn_source(), tmp_path / "b")
    assert one.sha256 == other.sha256


def test_comparison_tries_one_row_and_lengths_the_export_never_saw() -> None:
    sizes = list(parity_sizes(TOKEN_SPECS, {"length": 64}))
    assert {"batch": 1, "length": 2} in sizes
    assert {"batch": 8, "length": 64} in sizes
    assert {"batch": 3, "length": 64} in sizes
    assert len({each["length"] for each in sizes}) >= 5


def test_a_file_that_answers_otherwise_is_refused_with_the_difference(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    right = ort_answer(tiny_cnn_onnx)
    source = cnn_source(tiny_cnn_onnx, lambda feed: [right(feed)[0] + 0.25])
    with pytest.raises(ParityError, match=r"output 'logits' differs from the source's by 0\.25; allowed is 0\.0001"):
        run(source, tmp_path)


def test_answers_that_are_not_finite_are_refused(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    source = cnn_source(tiny_cnn_onnx, lambda feed: [np.full((len(feed["image"]), 10), np.inf, np.float32)])
    with pytest.raises(ParityError, match=r"differs from the source's by inf"):
        run(source, tmp_path)


def test_a_canonical_file_is_copied(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    artifact, figures = run(cnn_source(tiny_cnn_onnx, ort_answer(tiny_cnn_onnx)), tmp_path)
    assert figures["opset"] == "18"
    assert artifact.path != tiny_cnn_onnx


def older(opset: int, folder: Path, operator: str = "Relu") -> Path:
    """A file of one operator at an older opset."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["image"], ["logits"])],
        "old",
        [value("image", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [value("logits", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7)
    folder.mkdir(exist_ok=True)
    path = folder / "old.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_an_older_file_is_brought_to_the_canonical_opset(tmp_path: Path) -> None:
    path = older(12, tmp_path / "in")
    artifact, figures = run(cnn_source(path, ort_answer(path)), tmp_path)
    assert figures["opset"] == "18, from 12"
    assert onnx.load(str(artifact.path)).opset_import[0].version == 18


def test_an_older_file_that_cannot_be_converted_is_kept_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = older(12, tmp_path / "in")

    def fail(_model: onnx.ModelProto, _opset: int) -> onnx.ModelProto:
        raise RuntimeError("no adapter for Relu")

    monkeypatch.setattr("onnx.version_converter.convert_version", fail)
    artifact, figures = run(cnn_source(path, ort_answer(path)), tmp_path)
    assert figures["opset"] == "12, kept: no adapter for Relu"
    assert onnx.load(str(artifact.path)).opset_import[0].version == 12


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = older(18, tmp_path / "in", operator="Frobnicate")
    with pytest.raises(PassError, match="Frobnicate"):
        run(cnn_source(path, lambda feed: [feed["image"]]), tmp_path)


def test_a_module_that_cannot_be_exported_says_whose_fault_it_is(tmp_path: Path) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc]
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(PassError, match=r"torch\.onnx\.export cannot export the module"):
        run(ModuleSource(Branching(), IMAGE_SPECS, "logits"), tmp_path)
