"""The optimiser keeps what measures better, and passes its input on where nothing does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from erg_converters.artifact import Artifact, Format
from erg_converters.passes import optimize_onnx
from erg_converters.passes.base import PassContext
from erg_converters.passes.optimize_onnx import OptimizeOnnx, OptimizeSettings

from tests.converters.builders import IMAGE_SPECS, ModuleSource


def run(path: Path, folder: Path, settings: OptimizeSettings) -> tuple[Artifact, dict[str, str]]:
    source = ModuleSource(None, IMAGE_SPECS, "logits", file=path)
    step = OptimizeOnnx(settings)
    result = step.run(
        Artifact.of(Format.ONNX, path), PassContext(source=source, inputs=IMAGE_SPECS, folder=folder / "work")
    )
    return result, step.figures


class Clock:
    """Says what a call of each session costs, by the number of the graph's nodes: no wall or CPU clock is read."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.names: dict[int, str] = {}

    def open_session(self, path: Path, threads: int = 0) -> Any:
        session = onnxruntime.InferenceSession(str(path))
        if threads:
            self.names[id(session)] = path.stem if path.stem in self.seconds else "none"
        return session

    def cpu_seconds(self, session: Any, _feed: Any, _calls: int) -> float:
        return self.seconds[self.names[id(session)]]


def clock(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    fake = Clock({"none": 1.0, **seconds})
    monkeypatch.setattr(optimize_onnx, "open_session", fake.open_session)
    monkeypatch.setattr(optimize_onnx, "_cpu_seconds", fake.cpu_seconds)


def test_the_tool_that_saves_most_is_kept(tiny_cnn_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, onnxslim=0.9, onnxruntime=0.5)
    result, figures = run(tiny_cnn_onnx, tmp_path, OptimizeSettings(rounds=1))
    assert figures["kept"] == "onnxruntime, 0.500 of the input's CPU time"
    assert result.path.read_bytes() == (tmp_path / "work" / "onnxruntime.onnx").read_bytes()


def test_less_than_the_least_gain_passes_the_input_on(
    tiny_cnn_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, onnxslim=0.98, onnxruntime=1.4)
    result, figures = run(tiny_cnn_onnx, tmp_path, OptimizeSettings(rounds=1))
    assert figures["kept"] == "the input"
    assert figures["onnxslim, CPU time over the input's"] == "0.980"
    assert result.path.read_bytes() == tiny_cnn_onnx.read_bytes()


def test_a_tool_that_changes_answers_is_dropped_with_the_reason(
    tiny_cnn_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(given: Path, result: Path) -> None:
        model = onnx.load(str(given))
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [10])
        values = onnx.numpy_helper.to_array(bias) + 1
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        result.write_bytes(model.SerializeToString())

    monkeypatch.setattr(optimize_onnx, "_slim", spoil)
    result, figures = run(tiny_cnn_onnx, tmp_path, OptimizeSettings(tool="onnxslim"))
    assert figures["onnxslim"].startswith("dropped: at image")
    assert result.path.read_bytes() == tiny_cnn_onnx.read_bytes()


def test_none_passes_the_input_on(tiny_cnn_onnx: Path, tmp_path: Path) -> None:
    result, figures = run(tiny_cnn_onnx, tmp_path, OptimizeSettings(tool="none"))
    assert figures == {"kept": "the input"}
    assert result.sha256 == Artifact.of(Format.ONNX, tiny_cnn_onnx).sha256


def test_both_tools_keep_the_promises_on_a_real_encoder(tiny_bert_onnx: Path, tmp_path: Path) -> None:
    from tests.converters.builders import TOKEN_SPECS

    source = ModuleSource(None, TOKEN_SPECS, "sentence_embedding", file=tiny_bert_onnx)
    step = OptimizeOnnx(OptimizeSettings(rounds=1))
    step.run(
        Artifact.of(Format.ONNX, tiny_bert_onnx),
        PassContext(source=source, inputs=TOKEN_SPECS, folder=tmp_path / "work"),
    )
    assert {"onnxslim, CPU time over the input's", "onnxruntime, CPU time over the input's"} <= set(step.figures)
