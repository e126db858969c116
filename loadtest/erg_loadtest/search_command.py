"""`erg load search MODEL`: the highest rate that holds an objective."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from erg_loadtest.document import FORMAT, RunDocument, digest
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.live import progress as live_progress
from erg_loadtest.live import titled
from erg_loadtest.load import LoadPlan
from erg_loadtest.load import Progress as OnProgress
from erg_loadtest.load_options import plan_with, trial, with_load_options
from erg_loadtest.objective import Objective, Observation
from erg_loadtest.plots import save_latency_against_load
from erg_loadtest.rate_search import Found, SearchLimits, Step, Trial, judgements, next_step
from erg_loadtest.report_options import ReportOptions, UsageFailure, report_options
from erg_loadtest.run_page import validity_text
from erg_loadtest.search_page import found_text, search_page, steps_table
from erg_loadtest.state_file import StateFile
from erg_loadtest.svg import printable
from erg_loadtest.terminal import rich_table

_SET_BY_SEARCH = frozenset({"concurrency", "request_rate", "request_count", "duration"})


@click.command("search")
@click.option("--p99-ms", type=float, required=True, help="The objective: p99 of the answers, in milliseconds.")
@click.option("--success", type=float, default=0.99, show_default=True, help="The share of requests to be answered.")
@click.option("--start-rate", type=float, default=10.0, show_default=True, help="Requests a second to begin with.")
@click.option("--max-rate", type=float, default=1e6, show_default=True, help="Requests a second not to exceed.")
@click.option("--precision", type=float, default=0.05, show_default=True, help="Width of the bracket to stop at.")
@click.option("--step-seconds", type=float, default=5.0, show_default=True, help="Of one step, at least.")
@click.option("--rate-seconds", type=float, default=60.0, show_default=True, help="Of all steps at one rate, at most.")
@click.option("--state", type=click.Path(dir_okay=False, path_type=Path), help="Keeps finished steps, to go on from.")
@report_options
def search(  # noqa: PLR0917 - click passes them by name
    p99_ms: float, success: float, start_rate: float, max_rate: float, precision: float, step_seconds: float,
    rate_seconds: float, state: Path | None, form: str, plot: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Find the highest rate at which MODEL holds an objective, by doubling and bisection.

    Exit code 0 when a rate was found, 1 when none holds, 2 when the search could not run or go on; with --state, the
    same command goes on where it stopped.
    """
    reports = ReportOptions.taken(options)
    try:
        reports.check()
        objective = Objective(p99_ms=p99_ms, success=success)
        limits = SearchLimits(
            start_per_s=start_rate, most_per_s=max_rate, precision=precision, trial_s=step_seconds, rate_s=rate_seconds,
            least_per_s=min(SearchLimits().least_per_s, start_rate),
        )  # fmt: skip
        with live_progress(shown=form == "table") as progress:
            found, trials, runs = _run(objective, limits, options, state=state, reports=reports, progress=progress)
        whole = document(objective, limits, found, trials, runs)
        reports.write(runs, lambda: whole, lambda: search_page(objective, found, trials, runs))
        if plot is not None:
            save_latency_against_load(plot, runs, objective.p99_ms)
    except LoadTestError as error:
        raise UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(whole, indent=2))
    else:
        console = Console()
        console.print(rich_table(steps_table(objective, trials), f"{options['model']}: {objective}"))
        console.print(Text(printable(found_text(objective, found)), style="bold"))
    if found.holds_per_s is None:
        raise SystemExit(1)


with_load_options(search, without=_SET_BY_SEARCH)


def document(
    objective: Objective, limits: SearchLimits, found: Found, trials: Sequence[Trial], runs: Sequence[RunDocument]
) -> Mapping[str, Any]:
    """The search as plain values."""
    return {
        "format": FORMAT,
        "kind": "search",
        "objective": asdict(objective),
        "limits": asdict(limits),
        "found": asdict(found),
        "steps": [asdict(each) for each in judgements(objective, trials)],
        "runs": [run.to_json() for run in runs],
    }


def _run(
    objective: Objective,
    limits: SearchLimits,
    options: dict[str, Any],
    *,
    state: Path | None,
    reports: ReportOptions,
    progress: OnProgress | None,
) -> tuple[Found, list[Trial], list[RunDocument]]:
    def plan_at(step: Step, number: int) -> LoadPlan:
        # Other arrivals each time: trials at one rate are judged together.
        seed = options["seed"] + number
        return plan_with(options, request_rate=step.rate_per_s, duration=step.duration_s, seed=seed)

    if options["mlperf"] is not None or options["trace"] is not None:
        raise PlanError("a search decides when requests are due: leave out --mlperf and --trace")
    first = plan_at(Step(rate_per_s=limits.start_per_s, duration_s=limits.trial_s), 0)
    kept = StateFile(state, digest({"plan": first, "objective": objective, "limits": limits}))
    done = [_read_step(step, str(state)) for step in kept.steps]
    trials, runs = [each for each, _ in done], [run for _, run in done]
    quality = reports.quality(options["model"])
    while isinstance(step := next_step(objective, limits, trials), Step):
        label = f"{step.rate_per_s:g}/s"

        result, run = trial(plan_at(step, len(trials)), label=label, quality=quality, progress=titled(progress, label))
        assert result.record is not None
        trials.append(
            Trial(
                rate_per_s=step.rate_per_s,
                duration_s=step.duration_s,
                observation=Observation.of(result.record.samples, objective),
                invalid="" if run.valid else validity_text(run),
            )
        )
        runs.append(run)
        kept.add({"trial": asdict(trials[-1]), "run": run.to_json()})
    return step, trials, runs


def _read_step(step: Mapping[str, Any], where: str) -> tuple[Trial, RunDocument]:
    entry = step.get("trial")
    if not isinstance(entry, Mapping):
        raise PlanError(f"{where}: not a step of a search")
    try:
        found = Trial(
            rate_per_s=float(entry["rate_per_s"]),
            duration_s=float(entry["duration_s"]),
            observation=Observation.from_json(entry["observation"]),
            invalid=str(entry["invalid"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"{where}: not a step of a search: {error!r}") from None
    return found, RunDocument.from_json(step.get("run"), where)
