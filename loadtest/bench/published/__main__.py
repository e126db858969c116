"""The published benchmark: Erg, ONNX Runtime alone, MLServer and Mosec on the same models, taking turns.

    make bench
    make bench ROUNDS=1 SECONDS=2 MODELS=mlp

`make` installs the rivals, each into an environment of its own under .cache/bench. A whole run goes into
docs/benchmarks.md, between its markers, with its plots; one with fewer rounds or models goes beside the raw figures,
into .cache/bench, so that no trial overwrites what is published. Run it on an idle machine.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from bench.published.figures import Record
from bench.published.machine import busy_cores, described, split_cores, versions
from bench.published.models import MODELS
from bench.published.plots import cpu_plot, latency_plot
from bench.published.run import ROOT, Plan, Run
from bench.published.section import replaced, write_atomically
from bench.published.servers import RIVALS
from bench.published.tables import section
from bench.serving import COMPILED
from rich.console import Console

LOADS = [1, 8, 32]
PUBLISHED_ROUNDS = 3
_PLOTS = ("bench_cpu.svg", "bench_latency.svg")


@click.command(help=__doc__)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Times that all take a turn.")
@click.option("--seconds", type=click.FloatRange(min=0.5), default=4.0, show_default=True, help="Length of a turn.")
@click.option("--models", default=",".join(model.name for model in MODELS), show_default=True, help="With commas.")
@click.option(
    "--model-repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / "model_repo",
    help="Where converted models are; what is missing is built.  [default: model_repo]",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Of each server, one thread each."
)
@click.option("--price-per-cpu-hour", default=0.04, show_default=True, help="An example, in dollars.")
@click.option("--watts-per-busy-core", default=6.0, show_default=True, help="An example, for modelled joules.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), default=ROOT / ".cache" / "bench", hidden=True
)
@click.option(
    "--page", type=click.Path(dir_okay=False, path_type=Path), default=ROOT / "docs" / "benchmarks.md", hidden=True
)
@click.option(
    "--results",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure nothing: write the page again from the figures of an earlier run (.cache/bench/results.json).",
)
def main(
    *,
    rounds: int,
    seconds: float,
    models: str,
    model_repository: Path,
    workers: int,
    price_per_cpu_hour: float,
    watts_per_busy_core: float,
    folder: Path,
    page: Path,
    results: Path | None,
) -> None:
    """Measure, or read what was measured, and write the page."""
    console = Console(soft_wrap=True)
    template = page.read_text(encoding="utf-8")
    # Before twenty minutes of measuring, not after.
    replaced(template, "")
    if results is not None:
        record = Record.from_json(json.loads(results.read_text(encoding="utf-8")))
        publish(record, template, page, folder, console)
        return
    wanted = [name.strip() for name in models.split(",") if name.strip()]
    known = {model.name: model for model in MODELS}
    if unknown := [name for name in wanted if name not in known] or not wanted:
        raise click.UsageError(f"--models: {unknown} unknown; there are {', '.join(known)}")
    build = "compiled" if list(COMPILED.glob("*.so")) else "plain"
    server_cores, client_cores = split_cores(sorted(os.sched_getaffinity(0)), workers)
    if len(server_cores) < workers:
        raise click.UsageError(f"--workers {workers}: this machine gives {len(server_cores)} cores")
    command = "make bench"
    command += f" ROUNDS={rounds}" if rounds != 5 else ""
    command += f" SECONDS={seconds:g}" if seconds != 4 else ""
    command += f" MODELS={','.join(wanted)}" if set(wanted) != set(known) else ""
    record = Record(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=described(),
        versions=versions(RIVALS, build="compiled" if build == "compiled" else "not compiled"),
        busy_at_start=busy_cores(),
        command=command,
        rounds=rounds,
        seconds=seconds,
        loads=LOADS,
        workers=workers,
        usd_per_cpu_hour=price_per_cpu_hour,
        watts_per_busy_core=watts_per_busy_core,
    )
    plan = Plan(
        models=tuple(known[name] for name in wanted),
        repository=model_repository,
        environments=folder,
        rounds=rounds,
        seconds=seconds,
        server_cores=tuple(server_cores),
        client_cores=tuple(client_cores),
        build=build,
    )
    folder.mkdir(parents=True, exist_ok=True)
    # Else a run that is ended leaves its servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    run = Run(plan, record, console)
    try:
        run.all()
    finally:
        write_atomically(folder / "results.json", json.dumps(record.to_json(), indent=1) + "\n")
    publish(record, template, page, folder, console)


def publish(record: Record, template: str, page: Path, folder: Path, console: Console) -> None:
    """Write the page and its plots: where it is published, or for less than a whole run beside the figures."""
    whole = record.rounds >= PUBLISHED_ROUNDS and set(record.titles) == {model.name for model in MODELS}
    target = page if whole else folder / page.name
    images = target.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    if record.models():
        for name, draw in zip(_PLOTS, (cpu_plot, latency_plot), strict=True):
            write_atomically(images / name, draw(record))
    text = section(record, cpu_plot=f"images/{_PLOTS[0]}", latency_plot=f"images/{_PLOTS[1]}")
    write_atomically(target, replaced(template, text))
    console.print(f"written: {target}", highlight=False)
    if not whole:
        console.print("not a whole run: what is published stays as it was", highlight=False)


if __name__ == "__main__":
    main()
