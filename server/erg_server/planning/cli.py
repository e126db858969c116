"""`erg plan`: what a load would do to a repository on given devices, before anything is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from erg_server.devices.memory_budget import parse_budgets
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.planning.advice import KindAdvice, advise
from erg_server.planning.batch_times import parse_assumptions
from erg_server.planning.catalogue import Knowledge, read_catalogue
from erg_server.planning.document import plan_document
from erg_server.planning.forecast import Forecast
from erg_server.planning.hardware import planned_devices
from erg_server.planning.load_file import read_load
from erg_server.planning.objectives import parse_objectives
from erg_server.planning.report import print_plan
from erg_server.planning.scenario import Scenario
from erg_server.planning.simulate import forecast
from erg_server.repository.installed import usable_backends
from erg_server.scheduling.latency_cache import LatencyCache

UNMET_STATUS = 3
"""The exit status of a plan that was made and fails."""
DEFAULT_SECONDS = 60.0
_WIDE = 200

_HELP = """Say what a load would do to MODEL_REPOSITORY on given devices, before anything is started.

The server's own scheduler and placement run on a virtual clock, with the batch times that a server learnt
(--latency-cache), that `erg convert` measured (the manifest), or that you assume. Printed are, for each model, where
it is, p99, goodput (answers within the objective) and what is refused; utilization of each device; memory; and
where an objective is missed, how many further devices, or which models less, would meet it.

\b
Examples:
  erg plan model_repo --load rates.toml
  erg plan model_repo --load rates.toml --devices 8xcpu --threads-per-worker 2
  erg plan model_repo --load trace.csv --devices 2xgpu --memory-budget gpu=20GiB --json plan.json
  erg plan model_repo --load rates.toml --objective-ms 50 --assume-ms minilm=4+0.5

\b
rates.toml                             trace.csv
  [models.minilm]                        time_s,model,rows
  rate_per_s = 50                        0.000,minilm,1
  arrivals = "bursty"                    0.013,minilm,4
  objective_ms = 50                      0.020,resnet,1

\b
Keys of a model in rates.toml (only rate_per_s is required):
  rate_per_s     requests a second over a long time
  arrivals       "poisson" (independent callers, the default), "constant" or "bursty"
  objective_ms   within what time 99 of 100 requests are to be answered
  rows, length   of each request: rows (1), and the size of its open axes
  peak, burst_share, burst_s
                 of bursty arrivals: times the mean rate (5), share of the time (0.1),
                 mean seconds of a burst (0.5)

Exits with 0 when every objective is met, 3 when one is not, 1 when there can be no plan (as for a model of which
nothing says what its batches take), 2 when the command itself was wrong.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What there is to print."""

    scenario: Scenario
    found: Forecast
    advice: tuple[KindAdvice, ...] | None
    passed_over: Mapping[str, str]


@click.command(short_help="Predict what a load does to a repository on given devices.", help=_HELP)
@click.argument(
    "model_repository", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--load",
    "load_file",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="rates.toml, or trace.csv with recorded requests.",
)
@click.option(
    "--devices",
    multiple=True,
    help="4xcpu, 2xgpu: so many, here or not; 2xgpu0: such as gpu0 here; or as in erg serve: cpu, gpu0, gpu0.mig1. "
    "Repeatable, or a list with commas. [default: this machine's]",
)
@click.option(
    "--threads-per-worker",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Cores of a CPU worker; batch times count only where they were measured with as many.",
)
@click.option("--memory-budget", multiple=True, help="As in erg serve: 8GiB, or for one kind cpu=8GiB, gpu=20GiB.")
@click.option(
    "--objective-ms",
    multiple=True,
    help="50 for each model that states no objective, or NAME=50 in place of what it states. Repeatable.",
)
@click.option(
    "--latency-cache",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file of batch times that erg serve --latency-cache keeps.",
)
@click.option(
    "--assume-ms",
    multiple=True,
    help="NAME=5 for 5 ms a row, NAME=4+0.5 for 4 ms a batch and 0.5 ms a row, whatever was measured. Repeatable.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 1e7, min_open=True),
    help="Simulated time. [default: 60 for rates, all of a trace]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds make equal plans.")
@click.option("--advice/--no-advice", default=True, help="Search for what would meet missed objectives.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, allow_dash=True), help="Also write JSON; - prints it alone."
)
def plan(
    *,
    model_repository: tuple[Path, ...],
    load_file: Path,
    devices: tuple[str, ...],
    threads_per_worker: int,
    memory_budget: tuple[str, ...],
    objective_ms: tuple[str, ...],
    latency_cache: Path | None,
    assume_ms: tuple[str, ...],
    seconds: float | None,
    seed: int,
    advice: bool,
    json_file: Path | None,
) -> None:
    """See `_HELP`, which is what people read."""
    try:
        load = read_load(load_file)
        chosen = planned_devices(devices, threads_per_worker=threads_per_worker)
        budget = parse_budgets(memory_budget)
        known = Knowledge(
            objectives=parse_objectives(objective_ms),
            cache=None if latency_cache is None else LatencyCache(latency_cache),
            assumed=parse_assumptions(assume_ms),
        )
        _check_assumed(known, [each.name for each in load.models])
    except InvalidArgumentError as error:
        raise click.UsageError(error.message) from error
    try:
        catalogue = read_catalogue(model_repository, load, chosen, usable_backends(), known)
        scenario = Scenario(
            models=catalogue.models,
            devices=chosen,
            budget=budget,
            seconds=seconds or load.span_s or DEFAULT_SECONDS,
            seed=seed,
        )
        found, advised = _simulate(scenario, advice=advice)
    except ErgError as error:
        raise click.ClickException(error.message) from error
    _write(_Plan(scenario=scenario, found=found, advice=advised, passed_over=catalogue.passed_over), json_file)
    sys.exit(0 if found.met else UNMET_STATUS)


def _check_assumed(known: Knowledge, names: Sequence[str]) -> None:
    """A name that nothing is assumed or promised for is a slip of the pen.

    Raises:
        InvalidArgumentError: the load has no such model.
    """
    for flag, stated in (("--assume-ms", known.assumed), ("--objective-ms", known.objectives.by_name)):
        for name in stated:
            if name not in names:
                raise InvalidArgumentError(f"{flag}: the load has no model '{name}'; it has {', '.join(names)}")


def _simulate(scenario: Scenario, *, advice: bool) -> tuple[Forecast, tuple[KindAdvice, ...] | None]:
    """The plan and what would help it, with a bar for each simulation where somebody watches."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("simulating", total=1.0)

        def run(each: Scenario, what: str) -> Forecast:
            progress.update(task, description=f"simulating {what}", completed=0)
            return forecast(each, lambda done: progress.update(task, completed=done))

        found = run(scenario, "the load")
        if not advice:
            return found, None
        return found, advise(scenario, found, run)


def _write(made: _Plan, json_file: Path | None) -> None:
    text = json.dumps(plan_document(made.scenario, made.found, made.advice, made.passed_over), indent=2)
    if json_file is not None and str(json_file) == "-":
        click.echo(text)
        return
    # Laid out for the terminal, and for as much room as the tables need where there is none.
    wide = None if sys.stdout.isatty() else _WIDE
    print_plan(Console(highlight=False, width=wide), made.found, made.advice, made.passed_over)
    if json_file is not None:
        try:
            json_file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"--json {json_file}: {error.strerror}") from error
