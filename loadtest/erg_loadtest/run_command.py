"""`erg load MODEL`: one load test from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from erg_loadtest.document import run_document
from erg_loadtest.errors import LoadTestError
from erg_loadtest.live import progress as live_progress
from erg_loadtest.load import run_load
from erg_loadtest.option_values import plan_of
from erg_loadtest.plan_options import plan_options
from erg_loadtest.plots import save_latency_plot
from erg_loadtest.report import render
from erg_loadtest.report_options import ReportOptions, UsageFailure, command_line, report_options
from erg_loadtest.run_page import run_page
from erg_loadtest.terminal import render_document

_FAILED = 1
_INVALID = 3


@click.command("run")
@click.argument("model")
@plan_options
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@report_options
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a .png of the latencies here.")
def run(
    *,
    form: str,
    plot: Path | None,
    **options: Any,
) -> None:
    """Load MODEL on a v2 gRPC server and say what it did.

    Exit code 0 when every request was answered rightly, 1 when any was not, 2 when the test could not run, 3 when the
    run is invalid: the client was the limit, so that its figures say nothing about the server, or LoadGen says so.
    """
    console = Console()
    reports = ReportOptions.taken(options)
    try:
        plan = plan_of(options)
        reports.check()
        with live_progress(shown=form == "table") as progress:
            result = run_load(plan, progress=progress)
        document = run_document(plan, result, command=command_line(), quality=reports.quality(result.model))
        found, baseline = reports.indices(document), reports.baseline_parts()
        whole = document.to_json() | {"indices": None if found is None else found.to_json()}
        reports.write(
            [document],
            lambda: whole | {"latencies_ns": result.latencies_ns.tolist()},
            lambda: run_page(document, found, baseline),
        )
        if plot is not None:
            save_latency_plot(plot, {f"{result.model}": result})
    except LoadTestError as error:
        raise UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(whole, indent=2))
    else:
        console.print(render(result))
        console.print(render_document(document, found))
    if result.failed or not result.succeeded:
        raise SystemExit(_FAILED)
    if not result.validity.valid or (result.mlperf is not None and not result.mlperf.valid):
        raise SystemExit(_INVALID)
