"""`erg load sweep MODEL`: one run for every combination of loads, models and configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from erg_loadtest.document import FORMAT, RunDocument, digest, labelled
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.indices import Indices, hints, indices
from erg_loadtest.live import progress as live_progress
from erg_loadtest.live import titled
from erg_loadtest.load import Progress as OnProgress
from erg_loadtest.load_options import plan_with, trial, with_load_options
from erg_loadtest.model_control import ModelControl
from erg_loadtest.pareto import Front, front
from erg_loadtest.plots import save_sweep_plot
from erg_loadtest.report_options import ReportOptions, UsageFailure, command_line, report_options
from erg_loadtest.state_file import StateFile, keyed
from erg_loadtest.svg import printable
from erg_loadtest.sweep import Point, parse_configs, parse_counts, parse_numbers, points
from erg_loadtest.sweep_page import index_table, runs_table, sweep_page
from erg_loadtest.terminal import rich_table

_INVALID = 3
_SET_BY_SWEEP = frozenset({"concurrency", "request_rate"})


@click.command("sweep")
@click.option("--concurrency", help="Closed loops: callers of each run, for instance 1,2,4,8.")
@click.option("--request-rate", help="Open loops: requests a second of each run, for instance 50,100,200.")
@click.option("--models", help="More models to load in the same way, as variants of the first: b,c.")
@click.option("--config", "configs", multiple=True, help="KEY=V1,V2 of the configuration, by loading the model anew.")
@click.option("--p99-ms", type=float, help="The p99 that the chosen run must keep, in milliseconds.")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="Keeps finished runs, to go on from.")
@report_options
def sweep(
    concurrency: str | None, request_rate: str | None, models: str | None, configs: tuple[str, ...], *,
    p99_ms: float | None, state: Path | None, form: str, plot: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Load MODEL once for every combination of what is swept over, and say which run is the cheapest.

    Exit code 2 when a run could not be made, 3 when one is invalid; with --state, the same command goes on where it
    stopped.
    """
    reports = ReportOptions.taken(options)
    try:
        reports.check()
        chosen = points(
            [options.pop("model"), *(models.split(",") if models else ())],
            concurrencies=[] if concurrency is None else parse_counts(concurrency, "--concurrency"),
            rates=[] if request_rate is None else parse_numbers(request_rate, "--request-rate"),
            configs=parse_configs(configs),
        )
        with live_progress(shown=form == "table") as progress:
            runs = labelled(_run(chosen, options, state, reports, progress))
        best = front(runs, p99_ms=p99_ms)
        found = _indices(runs, reports)
        whole = document(chosen, runs, best, found)
        reports.write(runs, lambda: whole, lambda: sweep_page(runs, best, found, p99_ms))
        if plot is not None:
            save_sweep_plot(plot, runs, best, p99_ms)
    except LoadTestError as error:
        raise UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(whole, indent=2))
    else:
        _show(runs, best, found)
    if not all(run.valid for run in runs):
        raise SystemExit(_INVALID)


def _show(runs: Sequence[RunDocument], best: Front, found: Sequence[Indices]) -> None:
    console = Console()
    console.print(rich_table(runs_table(runs, best), "Runs"))
    console.print(rich_table(index_table(runs, found), f"Indices against {found[0].baseline}"))
    console.print(Text(hints(found[-1])))
    name = "" if best.chosen is None else f"{runs[best.chosen].label}: "
    console.print(Text(printable(name + best.reason), style="bold"))


with_load_options(sweep, without=_SET_BY_SWEEP)


def document(
    chosen: Sequence[Point], runs: Sequence[RunDocument], best: Front, found: Sequence[Indices]
) -> Mapping[str, Any]:
    """The sweep as plain values."""
    return {
        "format": FORMAT,
        "kind": "sweep",
        "command": command_line(),
        "points": [point.to_json() for point in chosen],
        "front": {**asdict(best), "modelled": sorted(best.modelled)},
        "indices": [each.to_json() for each in found],
        "runs": [run.to_json() for run in runs],
    }


def _indices(runs: Sequence[RunDocument], reports: ReportOptions) -> list[Indices]:
    baseline = reports.baseline_parts() or runs[0].parts()
    return [indices(run.parts(), baseline, reports.weighed()) for run in runs]


def _run(
    chosen: Sequence[Point],
    options: dict[str, Any],
    state: Path | None,
    reports: ReportOptions,
    progress: OnProgress | None,
) -> list[RunDocument]:
    plans = {
        point: plan_with(
            options, model=point.model, concurrency=point.concurrency, request_rate=point.request_rate
        )
        for point in chosen
    }  # fmt: skip
    kept = StateFile(state, digest([[point, plan] for point, plan in plans.items()]))
    done = {label: _read_run(step, str(state)) for label, step in keyed(kept.steps, "point").items()}
    control = ModelControl(next(iter(plans.values())).target)
    loaded: tuple[str, tuple[tuple[str, str], ...]] | None = None
    try:
        for point, plan in plans.items():
            if point.label in done:
                continue
            if point.config and loaded != (point.model, point.config):
                control.change(point.model, point.config)
                loaded = point.model, point.config
            quality, shown = reports.quality(point.model), titled(progress, point.label)
            _, done[point.label] = trial(
                plan, label=point.label, variant=point.variant, quality=quality, progress=shown
            )
            kept.add({"point": point.label, "run": done[point.label].to_json()})
    finally:
        control.restore()
    return [done[point.label] for point in chosen]


def _read_run(step: Mapping[str, Any], where: str) -> RunDocument:
    if "run" not in step:
        raise PlanError(f"{where}: not a step of a sweep")
    return RunDocument.from_json(step["run"], where)
