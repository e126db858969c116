"""What scaling by `erg_replicas_needed` is worth against CPU and queue length, on a simulated cluster.

    python -m bench.autoscaling [--plot ../docs/images/autoscaling.png] [--seeds 2] [--only tight]

Pods do what the real scheduler was measured to do by the simulator at each rate; Kubernetes' HPA scales them over days
whose rates are in `days.csv`. Targets are searched on a seed that is not reported. Everything is simulated and equal
each time; the table's text is Markdown. About ten minutes on a core.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from bench.autoscaling.cluster import CPU, ERG, LEAST, QUEUE, STEP_S, Policy, Run, simulate
from bench.autoscaling.load import rates
from bench.autoscaling.plot import draw
from bench.autoscaling.pods import Pod, PodTable, ScheduledPod, TabulatedPod, tabulate
from bench.autoscaling.services import SERVICES, Service
from bench.autoscaling.trace import DAYS
from bench.autoscaling.tuning import Figure, Load, best_target, measure

TUNING_SEED = 1
FIRST_SEED = 11
REQUESTS = 6000
"""For each rate of a table: one in a hundred is known to a few tenths of a per cent."""
CHECKED = "tight"
"""The service whose flash crowd is served by real schedulers as well: the one with fewest requests."""


def show(text: str) -> None:
    """Progress, apart from the results."""
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def tables(services: Sequence[Service]) -> dict[str, PodTable]:
    """Measure each service's pod."""
    found = {}
    for service in services:
        show(f"{service.name}: what a pod does by rate")
        found[service.name] = tabulate(service, requests=REQUESTS, seed=TUNING_SEED)
    return found


def cell(figure: Figure | None, bound: float) -> str:
    """Cost over the bound and attainment; an objective that was not kept stands out."""
    if figure is None:
        return "none found"
    told = f"{figure.replica_hours:.0f} ({figure.replica_hours / bound:.2f}), {figure.attainment:.1%}"
    return told if figure.attained else f"*{told}*"


def row(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    click.echo(f"\n{title}\n\n{row(columns)}\n{row(['---'] * len(columns))}")
    for cells in rows:
        click.echo(row(cells))


def check(service: Service, table: PodTable) -> None:
    """The flash crowd by the table and by real schedulers, request by request."""
    first, last = (round(hour * 3600 / STEP_S) for hour in (13.9, 14.5))
    crowd = rates("flash", service.peak_per_s, FIRST_SEED)[first:last]
    rows = []
    for policy in (ERG, CPU):
        show(f"{service.name}: the flash crowd by real schedulers, scaled by {policy.name}")
        runs: list[Run] = []
        for kind in (TabulatedPod, ScheduledPod):

            def make(number: int, kind: type[TabulatedPod | ScheduledPod] = kind) -> Pod:
                return kind(service, number, table)

            runs.append(simulate(service, crowd, policy, make, seed=FIRST_SEED, start=5))
        rows += [
            [policy.name, name, f"{run.attainment:.2%}", f"{run.replica_hours:.1f}", str(run.lost)]
            for name, run in zip(("table", "real scheduler"), runs, strict=True)
        ]
    columns = ("signal", "pods", "in time", "replica-hours", "lost on scale-down")
    report(f"The flash crowd of *{service.name}*, 36 minutes, {int(sum(crowd) * STEP_S):,} requests", columns, rows)


def least_pods(load: Load, seed: int) -> list[float]:
    """The fewest pods that answer 99 % in time at each step's rate."""
    table, worst = load.table, load.table.in_time.min(axis=1)
    most = table.rates_per_s[: int(np.argmax(worst < 0.99)) or None].max()
    return [float(max(LEAST, np.ceil(rate / most))) for rate in rates(load.day, load.service.peak_per_s, seed)]


@click.command(help=__doc__)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Where to write the PNG.")
@click.option("--seeds", default=2, show_default=True, help="Days of each load; the worst attainment is told.")
@click.option("--only", default="", help="One service alone.")
def main(plot: Path | None, seeds: int, only: str) -> None:
    """Tune, measure and print."""
    services = [service for service in SERVICES if only in {"", service.name}]
    if not services:
        raise click.UsageError(f"--only {only}: it is one of {', '.join(service.name for service in SERVICES)}")
    measured = tables(services)
    loads = [Load(service, measured[service.name], day) for service in services for day in DAYS]
    chosen = range(FIRST_SEED, FIRST_SEED + seeds)
    bounds = [sum(load.bound(seed) for seed in chosen) / seeds for load in loads]
    settings: dict[str, list[Figure | None]] = {}

    def add(name: str, policies: Sequence[Policy | None]) -> None:
        show(name)
        settings[name] = [
            None if policy is None else measure(load, policy, chosen)
            for load, policy in zip(loads, policies, strict=True)
        ]

    tuned: dict[str, list[float | None]] = {}
    for policy in (ERG, CPU, QUEUE):
        add(f"{policy.name} {policy.target:g}", [policy] * len(loads))
        targets = tuned[policy.name] = [best_target(load, policy, TUNING_SEED, show) for load in loads]
        known = [target for target in targets if target is not None]
        if len(known) == len(loads) and min(known) != policy.target:
            add(f"{policy.name} {min(known):g}, best for all", [policy.at(min(known))] * len(loads))
        add(f"{policy.name}, best for each", [None if target is None else policy.at(target) for target in targets])
    report(
        "Replica-hours (times the bound), share in time of the worst day; in italics where the objective was missed",
        ("load", "bound", *settings),
        [
            [load.name, f"{bound:.0f}", *(cell(figures[number], bound) for figures in settings.values())]
            for number, (load, bound) in enumerate(zip(loads, bounds, strict=True))
        ]
        + [["all", f"{sum(bounds):.0f}", *(total(figures, sum(bounds)) for figures in settings.values())]],
    )
    report(
        "The best target for each load",
        ("load", *tuned),
        [
            [load.name, *("none" if targets[number] is None else f"{targets[number]:g}" for targets in tuned.values())]
            for number, load in enumerate(loads)
        ],
    )
    for service in services:
        if service.name == CHECKED:
            check(service, measured[service.name])
    if plot is not None:
        picture(plot, loads, bounds, settings)


def total(figures: Sequence[Figure | None], bound: float) -> str:
    """Of all loads: the sum, and on how many the objective was kept."""
    known = [figure for figure in figures if figure is not None]
    kept = sum(figure.attained for figure in known)
    hours = sum(figure.replica_hours for figure in known)
    told = f"{hours:.0f} ({hours / bound:.2f})" if len(known) == len(figures) else "-"
    return f"{told}, kept on {kept} of {len(figures)}"


def picture(
    path: Path, loads: Sequence[Load], bounds: Sequence[float], settings: dict[str, list[Figure | None]]
) -> None:
    """Every setting that is one for all loads, and the checked service's flash crowd."""
    points = {
        name: [
            (figure.replica_hours / bound, 1 - figure.attainment)
            for figure, bound in zip(figures, bounds, strict=True)
            if figure is not None
        ]
        for name, figures in settings.items()
        if not name.endswith("each")
    }
    number = next((at for at, load in enumerate(loads) if load.service.name == CHECKED and load.day == "flash"), -1)
    crowd, policies = loads[number], [ERG, CPU]
    best = settings["cpu, best for each"][number]
    if best is not None:
        policies.append(CPU.at(best.target))
    replicas = {f"{policy.name} {policy.target:g}": crowd.run(policy, FIRST_SEED).replicas for policy in policies}
    needed = least_pods(crowd, FIRST_SEED)
    draw(path, points, replicas, needed, hours=(13.5, 16.5), title=f"a flash crowd: {crowd.name}")


if __name__ == "__main__":
    main()
