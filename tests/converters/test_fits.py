"""What a recipe asks for and its model, data or machine has not is an error before anything runs, and no verdict."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from erg_converters.errors import DataError, RecipeError, SourceError
from erg_converters.pipeline import run_recipe
from erg_converters.recipe import read_recipe
from erg_converters.workspace import Workspace
from erg_server.repository.cli import check
from erg_server.repository.manifest import load_manifest
from rich.console import Console

RECIPE = """[source]
kind = "onnx"
path = "{model}"

[evaluation]
kind = "npz"
path = "images.npz"

[gate]
{gate}

[measure]
{measure}

[[candidate]]
name = "half"
passes = [{{ pass = "convert_float16" }}]

[publish]
repository = "{repository}"
name = "cnn"
"""


class Asked:
    """Runs a recipe in a folder of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.repository: Path = folder / "repository"
        np.savez(folder / "images.npz", image=np.zeros((2, 3, 16, 16), np.float32))

    def __call__(self, gate: str = "", measure: str = "", model: str = "") -> None:
        path = self.folder / "recipe.toml"
        path.write_text(
            RECIPE.format(model=model or self.model, gate=gate, measure=measure, repository=self.repository)
        )
        run_recipe(read_recipe(path), Console(file=io.StringIO()), workspace=Workspace(self.folder / "cache"))


@pytest.fixture
def asked(tmp_path: Path, tiny_cnn_onnx: Path) -> Asked:
    return Asked(tmp_path, tiny_cnn_onnx)


@pytest.mark.parametrize(
    ("gate", "measure", "told"),
    [
        ('metric = "top1"', "", r"recipe\.toml:10: gate\.metric is top1, which needs labels.*agreement"),
        ('metric = "spearman"', "", r":10: gate\.metric is spearman, which needs 3 samples, and there is 2"),
        ('output = "logit"', "", r":10: gate\.output is 'logit', no output; did you mean 'logits'\?"),
        ("", "threads = 4096", r":13: measure\.threads is 4096, and this machine lets the conversion use \d+"),
        ("", 'devices = ["gpu"]', r":13: measure\.devices names 'cpu': conversions judge .* not 'gpu'"),
    ],
)
def test_what_would_fail_every_candidate_alike_ends_the_run_before_the_export(asked, gate, measure, told):
    with pytest.raises(RecipeError, match=told):
        asked(gate, measure)
    assert not asked.repository.exists()
    assert not (asked.folder / "cache" / "files").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_repository_that_may_not_be_written_to_is_told_before_hours_are_spent(asked):
    asked.repository = asked.folder / "locked" / "repository"
    asked.repository.parent.mkdir(mode=0o500)
    with pytest.raises(RecipeError, match="is no folder that may be written to"):
        asked()


def test_a_repository_below_a_file_is_told_before_hours_are_spent(asked):
    asked.repository = asked.folder / "recipe.toml" / "repository"
    with pytest.raises(RecipeError, match=r"publish\.repository is .*recipe\.toml is no folder"):
        asked()


def test_wrong_samples_and_sources_are_told_with_the_recipes_file_and_line(asked):
    np.savez(asked.folder / "images.npz", image=np.zeros((2, 3, 8, 8), np.float32))
    with pytest.raises(DataError, match=r"recipe\.toml:5: \[evaluation\] images\.npz sample \d: input 'image' takes"):
        asked()
    with pytest.raises(SourceError, match=r"recipe\.toml:1: source\.path = 'missing\.onnx'"):
        asked(model="missing.onnx")


def test_a_model_of_a_fixed_batch_of_one_is_converted_one_row_at_a_time(asked, tiny_cnn_onnx):
    model = onnx.load(tiny_cnn_onnx)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path = asked.folder / "one.onnx"
    onnx.save(model, path)
    with pytest.raises(RecipeError, match=r":12: measure\.batch_sizes are \[1, 8, 32\], and the model has a fixed"):
        asked(model=str(path))
    asked("min_cosine = 0.0", "batch_sizes = [1]\nrounds = 1", model=str(path))
    manifest = load_manifest(asked.repository / "cnn" / "1")
    assert manifest is not None
    assert {each.batch_size for each in manifest.measurements} == {1}
    assert manifest.golden is not None
    assert manifest.golden.inputs[0].shape == (1, 3, 16, 16)
    checked = CliRunner().invoke(check, [str(asked.repository)])
    assert checked.exit_code == 0, checked.output
