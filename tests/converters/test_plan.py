"""Chains are checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from erg_converters.errors import RecipeError
from erg_converters.plan import plan
from erg_converters.recipe import read_recipe

HEAD = """[source]
kind = "onnx"
path = "model.onnx"

[evaluation]
kind = "random"

[publish]
repository = "repository"
name = "model"

"""
CALIBRATION = '[calibration]\nkind = "random"\nseed = 5\n\n'


def planned(folder: Path, candidates: str, head: str = HEAD) -> list[tuple[str, list[str]]]:
    path = folder / "recipe.toml"
    path.write_text(head + candidates)
    return [(each.name, [step.name for step in each.passes]) for each in plan(read_recipe(path)).candidates]


def candidate(passes: str, backend: str = "onnxruntime", precision: str = "f32") -> str:
    return f'[[candidate]]\nname = "c"\nbackend = "{backend}"\nprecision = "{precision}"\npasses = [{passes}]\n'


def test_the_source_is_always_the_first_candidate(tmp_path: Path) -> None:
    assert planned(tmp_path, "") == [("source", [])]
    assert planned(tmp_path, candidate('{ pass = "optimize_onnx" }')) == [("source", []), ("c", ["optimize_onnx"])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (candidate('{ pass = "optimise_onnx" }'), r"recipe\.toml:\d+.*no pass is called 'optimise_onnx'"),
        (candidate('{ pass = "export_onnx" }'), "'export_onnx' is done first"),
        (candidate('{ pass = "optimize_onnx", tol = "none" }'), r"recipe\.toml:\d+.*did you mean 'tool'"),
        (
            candidate('{ pass = "quantize_dynamic" }, { pass = "optimize_onnx" }'),
            "'optimize_onnx' takes onnx, and what",
        ),
        (candidate('{ pass = "quantize_static" }'), r"'quantize_static' needs samples: add a \[calibration\] table"),
        (candidate("", backend="onxruntime"), "no backend is called 'onxruntime'; did you mean 'onnxruntime'"),
        (candidate("", precision="bf16"), "backend onnxruntime computes in f32"),
    ],
)
def test_a_chain_that_does_not_fit_is_refused_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        planned(tmp_path, text)


def test_calibration_data_let_a_pass_that_needs_them_in(tmp_path: Path) -> None:
    assert planned(tmp_path, candidate('{ pass = "quantize_static" }'), HEAD + CALIBRATION)[1] == (
        "c",
        ["quantize_static"],
    )


def test_only_some_candidates_may_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(HEAD + candidate("") + candidate("").replace('"c"', '"d"'))
    whole = plan(read_recipe(path))
    assert [each.name for each in whole.only(["d"]).candidates] == ["source", "d"]
    assert [each.name for each in whole.only([]).candidates] == ["source", "c", "d"]
    with pytest.raises(RecipeError, match="has no candidate 'e'"):
        whole.only(["e"])
