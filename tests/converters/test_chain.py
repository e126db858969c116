"""The keys that results are kept under, and what a run would do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnxruntime
import pytest
from erg_converters.chain import Chain, PlannedStep
from erg_converters.data import Dataset
from erg_converters.passes.base import Pass
from erg_converters.passes.export_onnx import ExportOnnx, ExportSettings
from erg_converters.passes.optimize_onnx import OptimizeOnnx, OptimizeSettings
from erg_converters.plan import CandidatePlan, Plan
from erg_converters.progress import Steps
from erg_converters.settings import PublishSettings, Recipe, SourceSettings
from erg_converters.workspace import Workspace
from rich.console import Console

from tests.converters.builders import IMAGE_SPECS, ModuleSource, images


@pytest.fixture
def chain(tiny_cnn_onnx: Path, tmp_path: Path) -> Chain:
    session = onnxruntime.InferenceSession(str(tiny_cnn_onnx))
    source = ModuleSource(
        None, IMAGE_SPECS, "logits", file=tiny_cnn_onnx, answer=lambda feed: list(session.run(None, dict(feed)))
    )
    return Chain(workspace=Workspace(tmp_path / "cache"), source=source, inputs=IMAGE_SPECS)


def data(sha256: str) -> Dataset:
    return Dataset(name="d", samples=(images(1),), labels=None, sha256=sha256)


def test_a_key_depends_on_settings_tools_data_and_input(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    start = chain.start()
    step = OptimizeOnnx(OptimizeSettings())
    keys = [
        chain.key(start, step),
        chain.key(start, OptimizeOnnx(OptimizeSettings(rounds=2))),
        chain.key(start, ExportOnnx(ExportSettings())),
        chain.key(dataclasses.replace(start, sha256="0"), step),
        dataclasses.replace(chain, evaluation=data("1")).key(start, step),
        dataclasses.replace(chain, evaluation=data("2")).key(start, step),
        dataclasses.replace(chain, inputs=(dataclasses.replace(IMAGE_SPECS[0], pad_value=1.0),)).key(start, step),
    ]
    monkeypatch.setattr(Pass, "tools", lambda _self: {"onnxslim": "9"})
    monkeypatch.setattr(OptimizeOnnx, "tools", lambda _self: {"onnxslim": "9"})
    keys.append(chain.key(start, step))
    assert len(set(keys)) == len(keys)
    assert chain.key(start, step) == keys[-1]


def test_a_preview_says_what_is_there_and_what_cannot_be_known(chain: Chain) -> None:
    step = OptimizeOnnx(OptimizeSettings(tool="none"))
    export = ExportOnnx(ExportSettings())
    source = CandidatePlan(name="source", backend="onnxruntime", precision="f32", passes=(), form=export.gives)
    slim = dataclasses.replace(source, name="slim", passes=(step,))
    recipe = Recipe(
        path=Path("recipe.toml"), sha256="r", source=SourceSettings(), publish=PublishSettings(repository="r", name="m")
    )
    planned = Plan(recipe=recipe, export=export, candidates=(source, slim))

    def seen() -> list[PlannedStep]:
        return list(chain.preview(planned))

    first, second = ("source", "export_onnx"), ("slim", "optimize_onnx")
    assert [(each.candidate, each.name) for each in seen()] == [first, second]
    assert [each.cached for each in seen()] == [False, None]
    steps = Steps(Console(quiet=True))
    with steps.step("export_onnx") as running:
        artifact, _ = chain.run(chain.start(), export, running)
    assert [each.cached for each in seen()] == [True, False]
    with steps.step("optimize_onnx") as running:
        _, record = chain.run(artifact, step, running)
    assert [each.cached for each in seen()] == [True, True]
    assert record.settings["tool"] == "none"
    assert record.settings["found: kept"] == "the input"
