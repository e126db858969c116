"""Two real models on the same workers, one of them in bursts; and one model offered three times what it can do.

    python -m bench.sharing --model-repository ../model_repo
    python -m bench.sharing --model-repository ../model_repo --only sharing --quiet efficientnet_lite0 --burst minilm

Sharing: the quiet model gets a steady Poisson load of 15 % of a core, alone and while the other one gets bursts of
three times what all workers can do. Its p99 with bursts to its p99 alone is to stay below 1.5. The same without
objectives.

Overload: one model is offered three times its capacity. Goodput is what is answered within the objective, a second,
counted at the client from when a request was due; it is to reach 90 % of the capacity, a closed loop's rate.

An objective is so many times (--objective-times) what a batch of one row takes on a worker, measured first. Cases take
turns, so that all meet the same machine. Client, front and workers share its cores: the table says what each had of
them, what other programs had ("others"), and how late the client sent. Where others had more than a few percent of a
core, or the client was a millisecond late, latencies are theirs as much as the server's. Needs the C++ compiler and
libraries that bench/build.py names.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from bench.build import built
from bench.burst_sharing import Case, Pace, p99_to_alone, sharing, sharing_tables
from bench.calibration import Loads, calibrate
from bench.overload import overload, overload_table, overload_verdicts
from bench.paced_client import Stream, steady_ns
from bench.paced_run import Bench, Run, latencies_ns, percentile_ms
from bench.server_counts import Counts
from bench.serving import Served, read_signature, served
from erg_server.pb import model_config_pb2
from erg_server.repository.layout import versions_on_disk
from google.protobuf import text_format
from rich.console import Console
from rich.table import Table

SHARE_WANTED = 1.5
GOODPUT_WANTED = 0.9
REFUSAL_WANTED_MS = 1.0


@click.command(help=(__doc__ or "").replace("\n\n", "\n\n\b\n", 1))
@click.option("--model-repository", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--only", type=click.Choice(["sharing", "overload"]), help="One part alone.")
@click.option("--quiet", default="minilm", show_default=True, help="The model with the steady load.")
@click.option("--burst", default="efficientnet_lite0", show_default=True, help="The model in bursts.")
@click.option("--overloaded", default="minilm", show_default=True, help="The model that is offered too much.")
@click.option("--length", default=32, show_default=True, help="Of axes that have no size in the configuration.")
@click.option(
    "--objective-times", default=10.0, show_default=True, help="An objective, in times of a row's time alone."
)
@click.option("--quiet-share", default=0.15, show_default=True, help="Of a core, the quiet model's load.")
@click.option("--overload-times", default=3.0, show_default=True, help="What is offered, in times of the capacity.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=12.0, show_default=True, help="Of a run of the sharing part.")
@click.option("--overload-seconds", default=20.0, show_default=True, help="Of a run of the overload part.")
@click.option("--burst-seconds", default=2.0, show_default=True)
@click.option("--every-seconds", default=4.0, show_default=True, help="A burst ends so long after the one before.")
@click.option("--callers", default=32, show_default=True, help="Of the closed loop that measures a capacity.")
@click.option("--workers", default=2, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the arrivals.")
@click.option("--build", default="compiled", show_default=True, type=click.Choice(["compiled", "plain"]))
@click.option("--client-build", type=click.Path(path_type=Path), help="Where the C++ client is built.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here as JSON.")
def main(
    *, model_repository: Path, only: str | None, quiet: str, burst: str, overloaded: str, length: int,
    objective_times: float, quiet_share: float, overload_times: float, rounds: int, seconds: float,
    overload_seconds: float, burst_seconds: float, every_seconds: float, callers: int, workers: int, seed: int,
    build: str, client_build: Path | None, output: Path | None,
) -> None:  # fmt: skip
    """Measure, and print what was wanted beside what was found."""
    console = Console(width=130)
    console.print("building the client")
    shares, overloads = only != "overload", only != "sharing"
    models = list(dict.fromkeys([*((quiet, burst) if shares else ()), *((overloaded,) if overloads else ())]))
    tables: list[Table] = []
    shared: dict[Case, list[Run]] = {}
    pairs: list[tuple[Run, Run]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-bench-")))
        bench = Bench(console=console, client=built("paced_client", client_build), folder=folder)

        def serve(kind: str, objectives_ms: Mapping[str, float]) -> Served:
            write_repository(model_repository, models, folder / kind, objectives_ms)
            server = stack.enter_context(served(folder / kind, "--cpu-workers", str(workers), build=build))
            bench.tree_pids.append(server.pid)
            return server

        without = serve("without", {})
        loads = calibrate(bench, without, models, length=length, times=objective_times, callers=callers)
        for model in models:
            console.print(
                f"{model}: a row takes {loads.single_ms[model]:.2f} ms, {callers} callers get "
                f"{loads.capacity_per_s[model]:.0f} a second, the objective is {loads.objective_ms[model]:g} ms"
            )
        servers = {"objectives": serve("objectives", loads.objective_ms), "without": without}
        warm_up(bench, servers["objectives"], models, loads, seed)
        if shares:
            pace = Pace(
                quiet=quiet,
                burst=burst,
                quiet_per_s=quiet_share * 1e3 / loads.single_ms[quiet],
                burst_per_s=overload_times * loads.capacity_per_s[burst],
                seconds=seconds,
                burst_s=burst_seconds,
                every_s=every_seconds,
            )
            shared = sharing(bench, servers, pace, loads, rounds=rounds, seed=seed)
            tables += sharing_tables(shared, pace, loads)
        if overloads:
            pairs = overload(
                bench, servers, overloaded, loads, times=overload_times, rounds=rounds, seconds=overload_seconds,
                callers=callers, seed=seed,
            )  # fmt: skip
            tables.append(overload_table(pairs, overloaded, loads))
    for table in tables:
        console.print(table)
    if shared:
        ratio = p99_to_alone(shared, quiet)
        verdict(console, f"{quiet}'s p99 with bursts ÷ alone", ratio, f"≤ {SHARE_WANTED}", ratio <= SHARE_WANTED)
    if pairs:
        ratio, p99_ms = overload_verdicts(pairs, overloaded, loads)
        verdict(console, "goodput ÷ capacity", ratio, f"≥ {GOODPUT_WANTED}", ratio >= GOODPUT_WANTED)
        within = p99_ms <= REFUSAL_WANTED_MS
        verdict(console, "refusals' p99 at the client, ms", p99_ms, f"≤ {REFUSAL_WANTED_MS:g}", within)
    if output is not None:
        output.write_text(json.dumps(document(loads, shared, pairs), indent=2) + "\n", encoding="utf-8")


def warm_up(bench: Bench, server: Served, models: Sequence[str], loads: Loads, seed: int) -> None:
    """Wait for each model, and have it answer for a second."""
    for model in models:
        asyncio.run(read_signature(server, model))
        steady = Stream(model=model, payloads=loads.payloads[model], due_ns=steady_ns(50.0, 1.0, seed))
        bench.run(f"{model}: warm-up", server, [steady], 1.0)


def verdict(console: Console, what: str, value: float, wanted: str, reached: bool) -> None:
    """One figure beside the wanted one."""
    console.print(f"{what}: {value:.2f}, wanted {wanted}: {'reached' if reached else 'missed'}", highlight=False)


def document(loads: Loads, shared: Mapping[Case, Sequence[Run]], pairs: Sequence[tuple[Run, Run]]) -> dict[str, Any]:
    """All figures as plain values."""
    return {
        "single_row_ms": dict(loads.single_ms),
        "capacity_per_s": dict(loads.capacity_per_s),
        "objective_ms": dict(loads.objective_ms),
        "sharing": {", ".join(case): [run_json(run) for run in runs] for case, runs in shared.items()},
        "overload": [{"capacity": run_json(capacity), "overload": run_json(run)} for capacity, run in pairs],
    }


def run_json(run: Run) -> dict[str, Any]:
    """One run's figures."""
    return {
        "wall_s": run.wall_s,
        "front_cpu_s": run.front_cpu_s,
        "workers_cpu_s": run.workers_cpu_s,
        "client_cpu_s": run.client_cpu_s,
        "others_cpu_s": run.others_cpu_s,
        "models": {
            model: {
                "count_by_status": part.samples.count_by_status(),
                "latency_ms": {f"p{rank}": percentile_ms(latencies_ns(part.samples), rank) for rank in (50, 90, 99)},
                "late_sent_p99_ms": percentile_ms(part.samples.sent_ns - part.samples.due_ns, 99),
                "server": {name: getattr(part.counts, name) for name in Counts.__slots__},
            }
            for model, part in run.parts.items()
        },
    }


def write_repository(source: Path, models: Sequence[str], target: Path, objectives_ms: Mapping[str, float]) -> None:
    """The newest versions of the models, with objectives in their configurations where there are any."""
    for model in models:
        versions = versions_on_disk(source / model)
        if not versions:
            raise click.ClickException(f"{source / model} has no version: build it first (erg convert run)")
        config = model_config_pb2.ModelConfig()
        text_format.Parse((source / model / "config.pbtxt").read_text(encoding="utf-8"), config)
        config.ClearField("version_policy")
        if model in objectives_ms:
            config.erg.slo.p99_ms = objectives_ms[model]
        folder = target / model
        folder.mkdir(parents=True)
        (folder / "config.pbtxt").write_text(text_format.MessageToString(config), encoding="utf-8")
        newest = str(max(versions))
        # Copied, since a linked folder is no version.
        shutil.copytree(source / model / newest, folder / newest)


if __name__ == "__main__":
    main()
