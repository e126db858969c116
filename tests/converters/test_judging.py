"""A whole run with the real gate and clock: the figures of the manifest, the drawings, and what is found only once."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from erg_converters.html import render
from erg_converters.pipeline import run_recipe
from erg_converters.recipe import read_recipe
from erg_converters.report import CandidateRecord, Report
from erg_converters.workspace import Workspace
from erg_server.repository.manifest import load_manifest
from PIL import Image
from rich.console import Console

RECIPE = """[source]
kind = "onnx"
path = "{model}"

[calibration]
kind = "npz"
path = "images.npz"
samples = 16

[evaluation]
kind = "npz"
path = "images.npz"
skip = 16
samples = 40

[[candidate]]
name = "int8"
passes = [{{ pass = "quantize_static", tool = "onnxruntime" }}]

[[candidate]]
name = "noisy"
passes = [{{ pass = "quantize_static", tool = "onnxruntime", subset_size = 1 }}]

[gate]
metric = "agreement"
max_drop = 0.9
min_cosine = {min_cosine}
resamples = 200

[measure]
batch_sizes = [1, 4]
rounds = 1

[publish]
repository = "{repository}"
name = "cnn"
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_cnn_onnx: Path) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("judged")
    np.savez(folder / "images.npz", image=np.random.default_rng(0).normal(size=(60, 3, 16, 16)).astype(np.float32))
    return folder, run(folder, tiny_cnn_onnx)


def run(folder: Path, model: Path, min_cosine: str = "0.9") -> Report:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(model=model, repository=folder / "repository", min_cosine=min_cosine))
    return run_recipe(read_recipe(path), Console(file=io.StringIO()), workspace=Workspace(folder / "cache"))


def test_the_manifest_has_accuracy_with_interval_and_a_figure_and_verdict_for_every_shape(ran):
    _, report = ran
    manifest = load_manifest(Path(report.published))
    assert manifest is not None
    (accuracy,) = [each for each in manifest.accuracy if each.variant == "int8"]
    assert (accuracy.metric, accuracy.samples) == ("agreement", 40)
    assert None not in (accuracy.drop_low, accuracy.drop, accuracy.drop_high)
    for variant in ("source", "int8"):
        figures = [each for each in manifest.measurements if each.variant == variant]
        assert [(each.batch_size, each.length) for each in figures] == [(1, None), (4, None)]
        assert all(each.cpu_ms_per_row and each.cpu_ratio for each in figures)
    words = {(each.variant, each.batch_size) for each in manifest.verdicts}
    assert words == {(variant, batch) for variant in ("int8", "noisy") for batch in (1, 4)}
    assert manifest.golden is not None


def test_what_was_judged_and_timed_is_not_judged_and_timed_again(ran, tiny_cnn_onnx):
    folder, first = ran
    again = run(folder, tiny_cnn_onnx)
    found = {f"{step.candidate} {step.name}".strip(): step.status for step in again.steps}
    assert {found[name] for name in ("int8 gate", "noisy gate", "measure")} == {"cached"}
    assert again.measurements == first.measurements
    assert again.published == first.published
    stricter = run(folder, tiny_cnn_onnx, min_cosine="0.91")
    assert {step.status for step in stricter.steps if step.name == "gate"} == {"done"}


def test_the_drawings_lie_beside_the_report_and_the_page_needs_nothing_else(ran):
    folder, report = ran
    (place,) = [path for path in (folder / "cache" / "runs").iterdir() if report.recipe_sha256[:12] in path.name]
    with Image.open(place / "front.png") as picture:
        assert picture.width > 1000
        # Drawn, and not an empty sheet.
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    page = (place / "report.html").read_text()
    assert "<script" not in page
    assert all(address.startswith("data:image/png;base64,") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    for told in ("Verdicts", "int8", "noisy", "agreement", "quantize_static", report.chosen_reason.split(":")[0]):
        assert told in page


def test_what_came_from_outside_is_escaped_in_the_page():
    candidate = CandidateRecord(
        name="<b>", backend="<script>", precision="f32", status="failed", reason="<img src=x onerror=alert(1)>"
    )
    page = render(Report(model="<i>", candidates=(candidate,), chosen="<b>", chosen_reason="a & b"))
    assert "<script" not in page
    assert "<img" not in page
    assert "a &amp; b" in page
