"""`erg load MODEL`: one load test from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from erg_loadtest.errors import LoadTestError
from erg_loadtest.load import Progress as OnProgress
from erg_loadtest.load import run_load
from erg_loadtest.option_values import plan_of
from erg_loadtest.plan_options import plan_options
from erg_loadtest.plots import save_latency_plot
from erg_loadtest.report import render

_FAILED = 1
_COULD_NOT_RUN = 2
_INVALID = 3


@click.command("run")
@click.argument("model")
@plan_options
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON with every latency here.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a .png of the latencies here.")
def run(
    *,
    form: str,
    output: Path | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Load MODEL on a v2 gRPC server and say what it did.

    Exit code 0 when every request was answered rightly, 1 when any was not, 2 when the test could not run, 3 when the
    run is invalid: the client was the limit, so that its figures say nothing about the server, or LoadGen says so.
    """
    console = Console()
    try:
        with _progress(shown=form == "table") as progress:
            result = run_load(plan_of(options), progress=progress)
        if output is not None:
            output.write_text(json.dumps(result.to_json(raw=True)) + "\n")
        if plot is not None:
            save_latency_plot(plot, {f"{result.model}": result})
    except LoadTestError as error:
        raise _UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        console.print(render(result))
    if result.failed or not result.succeeded:
        raise SystemExit(_FAILED)
    if not result.validity.valid or (result.mlperf is not None and not result.mlperf.valid):
        raise SystemExit(_INVALID)


class _UsageFailure(click.ClickException):
    exit_code = _COULD_NOT_RUN


@contextmanager
def _progress(*, shown: bool) -> Iterator[OnProgress | None]:
    if not shown:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # On standard error, so that the report can be piped; gone when done.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done)

        yield update
