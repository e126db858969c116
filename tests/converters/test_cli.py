"""`erg convert` on the command line: what it writes, explains and answers; the pipeline has its own tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from click.testing import CliRunner, Result
from erg_converters.cli import convert
from erg_converters.explain import described, summary, where_stopped
from erg_converters.plan import plan
from erg_converters.recipe import read_recipe
from erg_converters.report import REPORT_FILENAME, CandidateRecord, Report, StepRecord, dump_report
from erg_converters.settings import DataSettings
from erg_converters.sources.load import load_source
from erg_converters.workspace import Workspace
from rich.console import Console

from tests.converters import builders


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(convert, [str(argument) for argument in arguments])


def written(path: Path, *arguments: Any) -> str:
    result = invoke("init", "-o", path, *arguments)
    assert result.exit_code == 0, result.output
    return path.read_text(encoding="utf-8")


@pytest.fixture
def bert_recipe(tmp_path: Path, tiny_bert_folder: Path) -> Path:
    """A recipe that `init` wrote of the tiny encoder."""
    path = tmp_path / "bert.toml"
    written(path, tiny_bert_folder)
    return path


def test_init_of_an_encoder_writes_a_recipe_that_plans_and_loads(bert_recipe):
    recipe = read_recipe(bert_recipe)
    assert recipe.source.kind == "transformers"
    assert {"int8-dynamic"} <= {candidate.name for candidate in recipe.candidates}
    assert plan(recipe).candidates
    assert load_source(recipe).output_names == ("sentence_embedding",)
    assert recipe.evaluation is not None
    assert recipe.evaluation.kind == "random"
    assert "nothing about the task" in bert_recipe.read_text()


def test_init_of_a_convolutional_onnx_file_quantizes_it_statically(tmp_path, tiny_cnn_onnx):
    text = written(tmp_path / "cnn.toml", tiny_cnn_onnx, "--name", "cnn", "--repository", "models")
    recipe = read_recipe(tmp_path / "cnn.toml")
    assert [step.name for each in recipe.candidates for step in each.passes if each.backend == "onnxruntime"] == [
        "quantize_static"
    ]
    assert (recipe.publish.name, recipe.publish.repository, recipe.source.kind) == ("cnn", "models", "onnx")
    assert plan(recipe).candidates
    assert load_source(recipe).input_specs()[0].name == "image"
    assert '# name = "image"' in text


def test_init_of_a_checkpoint_states_factory_weights_and_inputs(tmp_path):
    (tmp_path / "erg_cli_factory.py").write_text("from tests.converters.builders import TinyCnn as build\n")
    weights = tmp_path / "w.safetensors"
    safetensors.torch.save_file(builders.tiny_cnn().state_dict(), weights)
    path = tmp_path / "cnn.toml"
    written(path, weights, "--factory", "erg_cli_factory:build", "--input", "image:FP32:-1,3,16,16")
    recipe = read_recipe(path)
    assert (recipe.source.weights, recipe.source.factory) == ("w.safetensors", "erg_cli_factory:build")
    assert recipe.inputs[0].dims == (-1, 3, 16, 16)
    assert load_source(recipe).output_names == ("output",)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing"], "there is no missing"),
        (["missing.onnx"], "there is no missing.onnx"),
        (["weights.pt"], "no architecture: add --factory"),
        ([], "name a MODEL, or a --factory"),
        (["--factory", "a:b"], "add --input"),
        (["--factory", "a:b", "--input", "x:FP32:3,3"], "a batch axis of -1"),
        (["--factory", "a:b", "--input", "x"], "--input is NAME:TYPE:DIMS"),
    ],
)
def test_init_says_what_it_needs(tmp_path, arguments, told):
    result = invoke("init", "-o", tmp_path / "r.toml", *arguments)
    assert result.exit_code == 1
    assert told in result.output
    assert not (tmp_path / "r.toml").exists()


def test_init_writes_over_a_file_only_when_told(tmp_path, tiny_cnn_onnx):
    path = tmp_path / "r.toml"
    path.write_text("mine")
    assert "--force" in invoke("init", tiny_cnn_onnx, "-o", path).output
    assert path.read_text() == "mine"
    written(path, tiny_cnn_onnx, "--force")
    assert read_recipe(path).source.kind == "onnx"


def test_explain_tells_every_step_default_and_what_is_cached(bert_recipe, tmp_path):
    result = invoke("explain", bert_recipe, "--cache", tmp_path / "cache")
    assert result.exit_code == 0, result.output
    for told in (
        "load the source: transformers",
        "source · export_onnx: to be done",
        "int8-dynamic · quantize_dynamic",
        "max_drop = 0.005: how far the metric may fall",
        "* seed = 1",
        "publish the next version of",
    ):
        assert told in result.output


def test_explain_of_the_plan_alone_loads_no_model(bert_recipe):
    bert_recipe.write_text(bert_recipe.read_text().replace("path = ", 'path = "missing" #'))
    assert invoke("explain", bert_recipe, "--plan-only").exit_code == 0
    result = invoke("explain", bert_recipe)
    assert result.exit_code == 1
    assert "there is no folder" in result.output


def test_settings_of_other_kinds_are_not_described():
    names = [line[2:].split(" = ")[0] for line in described(DataSettings(kind="npz", path="x"))]
    assert names == ["kind", "path", "samples", "skip", "seed"]


def test_a_wrong_recipe_is_an_error_with_its_line_and_no_traceback(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text("[sorce]\n")
    for command in ("run", "resume", "explain"):
        result = invoke(command, path)
        assert result.exit_code == 1
        assert "wrong.toml:1: unknown table [sorce]; did you mean 'source'?" in result.output


def test_a_recipe_without_a_command_is_told_the_command():
    result = invoke("recipe.toml")
    assert result.exit_code == 2
    assert "did you mean: erg convert run recipe.toml" in result.output


@pytest.mark.parametrize("arguments", [(), ("init",), ("run",), ("resume",), ("explain",), ("compare",)])
def test_help_of_every_command_shows_no_control_characters(arguments):
    result = invoke(*arguments, "--help")
    assert result.exit_code == 0
    assert "\\b" not in result.output
    assert "\b" not in result.output


def report_of(bert_recipe: Path, cache: Path, **rest: Any) -> str:
    recipe = read_recipe(bert_recipe)
    folder = Workspace(cache).run_folder(recipe.publish.name, recipe.sha256)
    (folder / REPORT_FILENAME).write_text(dump_report(Report(model=recipe.publish.name, **rest)), encoding="utf-8")
    return where_stopped(recipe, cache)


def test_resume_tells_where_the_last_run_stopped(bert_recipe, tmp_path):
    assert "was not run before" in where_stopped(read_recipe(bert_recipe), tmp_path / "none")
    done = StepRecord(name="export_onnx", status="done")
    failed = StepRecord(name="quantize_static", candidate="int8", status="failed", message="the disk is full")
    told = report_of(bert_recipe, tmp_path, steps=(done, failed))
    assert "goes on from int8 · quantize_static, which ended with: the disk is full; 1 steps" in told
    assert "goes on after export_onnx" in report_of(bert_recipe, tmp_path, steps=(done,))
    # One that failed before the run was killed, or before it published, is not where it stopped.
    gate = StepRecord(name="gate", candidate="bf16", status="done")
    assert "goes on after gate" in report_of(bert_recipe, tmp_path, steps=(done, failed, gate))
    assert "published repo/m/3" in report_of(bert_recipe, tmp_path, steps=(done, failed), published="repo/m/3")
    assert "published repo/m/3" in report_of(bert_recipe, tmp_path, steps=(done,), published="repo/m/3")


def test_a_runs_summary_keeps_the_brackets_of_a_reason():
    candidate = CandidateRecord(name="a", backend="openvino", precision="f32", status="refused", reason="at [8, 32]")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary(Report(model="m", candidates=(candidate,), chosen="source", chosen_reason="[b] fails")))
    text = console.export_text()
    assert "at [8, 32]" in text
    assert "[b] fails" in text


def test_compare_shows_both_reports(tmp_path):
    for name, size in (("one", 4_000_000), ("other", 1_000_000)):
        (tmp_path / name).mkdir()
        candidate = CandidateRecord(name="int8", backend="openvino", precision="f32", status="passed", bytes=size)
        text = dump_report(Report(model="m", candidates=(candidate,)))
        (tmp_path / name / REPORT_FILENAME).write_text(text, encoding="utf-8")
    result = invoke("compare", tmp_path / "one", tmp_path / "other")
    assert result.exit_code == 0, result.output
    assert "4.0 → 1.0" in result.output
    assert "report" in invoke("compare", tmp_path, tmp_path).output
