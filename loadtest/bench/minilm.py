"""MiniLM served against MiniLM in plain ONNX Runtime, taken in turns so that both meet the same machine.

    python -m bench.minilm --model-repository model_repo

Prints CPU time per inference (front and workers apart), throughput, and ratios: served to raw CPU time at 8 and at 32
in flight, mixed lengths to the same sentences padded to the longest, and the converted model's winner to the model
as it was. Both are served at once, each by a server of its own, and take turns. Run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from bench.raw_onnxruntime import RawRun, best, measure_raw
from bench.serving import Served, read_signature, served
from erg_loadtest.arrivals import ClosedLoop, Limit
from erg_loadtest.client import Target
from erg_loadtest.load import LoadPlan, PreparedScenario, run_load
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.result import LoadResult
from erg_loadtest.tensors import Array, Signature
from rich.console import Console
from rich.table import Table

_LONGEST = 128
_SHORTEST = 5
_DISTINCT = 256
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way of calling the served model."""

    name: str
    concurrency: int
    payloads: tuple[Payload, ...]


def cases(signature: Signature, *, length: int) -> list[Case]:
    """Fixed length at 8 and 32 in flight; then the same mixed sentences as they are, and padded by the client."""
    lengths = random.Random(0)  # noqa: S311 - test data
    mixed = [lengths.randint(_SHORTEST, _LONGEST) for _ in range(_DISTINCT)]
    fixed = tuple(_payload(signature, length, length, seed) for seed in range(_DISTINCT))
    return [
        Case(name=f"{length} tokens, 8 in flight", concurrency=8, payloads=fixed),
        Case(name=f"{length} tokens, 32 in flight", concurrency=32, payloads=fixed),
        Case(
            name=f"mixed {_SHORTEST}–{_LONGEST}, 32 in flight",  # noqa: RUF001
            concurrency=32,
            payloads=tuple(_payload(signature, size, size, seed) for seed, size in enumerate(mixed)),
        ),
        Case(
            name=f"the same padded to {_LONGEST}",
            concurrency=32,
            payloads=tuple(_payload(signature, size, _LONGEST, seed) for seed, size in enumerate(mixed)),
        ),
    ]


def _payload(signature: Signature, tokens: int, length: int, seed: int) -> Payload:
    """One sentence of random tokens, padded to `length` with a mask that says so."""
    generator = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for spec in signature.inputs:
        row = np.zeros((1, length), dtype=np.int64)
        if "mask" in spec.name:
            row[:, :tokens] = 1
        elif "type" not in spec.name:
            row[:, :tokens] = generator.integers(1000, 29_000, size=tokens)
        tensors[spec.name] = row
    return build_payload(signature, tensors, rows=1)


def run_case(case: Case, server: Served, model: str, seconds: float) -> LoadResult:
    """Measure one case for `seconds`."""
    return run_load(
        LoadPlan(
            model=model,
            target=Target(url=server.url, timeout_s=_TIMEOUT_S),
            arrivals=ClosedLoop(concurrency=case.concurrency),
            limit=Limit(duration_s=seconds),
            warmup=Limit(requests=2 * case.concurrency),
            scenario=PreparedScenario(payloads=case.payloads),
            metrics_url=server.metrics_url,
            ready_timeout_s=_TIMEOUT_S,
        )
    )


def median_of(results: Sequence[LoadResult], figure: Callable[[LoadResult], float | None]) -> float | None:
    """The median over rounds, None when a round lacks the figure."""
    values = [value for result in results if (value := figure(result)) is not None]
    return statistics.median(values) if len(values) == len(results) and values else None


def report(raw: Sequence[RawRun], rounds: Mapping[str, Sequence[LoadResult]]) -> Table:
    """Medians over the rounds."""
    raw_us = statistics.median(run.cpu_us_per_inference for run in raw)
    raw_rate = statistics.median(run.inferences_per_s for run in raw)
    table = Table(title="MiniLM: medians of rounds, measured")
    for heading in ("", "inferences/s", "CPU ms", "front ms", "workers ms", "raw ÷ served CPU", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_column("mean batch", justify="right")
    table.add_column("workers busy", justify="right")
    table.add_row(f"raw ONNX Runtime, batch {raw[0].batch}", f"{raw_rate:.1f}", f"{raw_us / 1e3:.2f}", "–", "–", "1.00")  # noqa: RUF001
    for name, results in rounds.items():
        cpu_us = median_of(results, lambda result: result.cpu_us_per_inference)
        fixed = "tokens" in name and not name.startswith("winner")
        table.add_row(
            name,
            _figure(median_of(results, lambda result: result.inferences_per_s), 1, "{:.1f}"),
            _figure(cpu_us, 1e3),
            _figure(median_of(results, lambda result: result.front_cpu_us_per_inference), 1e3),
            _figure(median_of(results, lambda result: result.workers_cpu_us_per_inference), 1e3),
            _figure(raw_us / cpu_us if cpu_us and fixed else None, 1),
            _figure(median_of(results, lambda result: _percentile(result, 50.0)), 1e3),
            _figure(median_of(results, lambda result: _percentile(result, 99.0)), 1e3),
            _figure(median_of(results, lambda result: result.mean_batch), 1),
            " ".join(f"{share:.0%}" for share in results[-1].busy_by_worker.values()) or "unknown",
        )
    return table


def _percentile(result: LoadResult, percentile: float) -> float | None:
    return None if result.latency is None else result.latency.percentile_us(percentile)


def _figure(value: float | None, unit: float, form: str = "{:.2f}") -> str:
    return "unknown" if value is None else form.format(value / unit)


@click.command()
@click.option("--model-repository", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--model", default="minilm", show_default=True)
@click.option("--onnx", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Default: newest version.")
@click.option("--length", default=32, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="For each case in each round.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here as JSON.")
def main(
    *, model_repository: Path, model: str, onnx: Path | None, length: int, rounds: int, seconds: float,
    output: Path | None,
) -> None:  # fmt: skip
    """Compare served MiniLM with raw ONNX Runtime."""
    console = Console()
    path = onnx or _newest(model_repository / model)
    scan = [measure_raw(path, batch=batch, length=length, seconds=min(seconds, 4.0)) for batch in (1, 2, 4, 8, 16)]
    batch = best(scan).batch
    console.print(f"raw ONNX Runtime is best at batch {batch} on {scan[0].processes} cores")
    raw: list[RawRun] = []
    results: dict[str, list[LoadResult]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-bench-")))
        write_plain(model_repository / model, path, folder / model)
        server = stack.enter_context(served(folder))
        winner = stack.enter_context(
            served(model_repository, "--model-control-mode", "explicit", "--load-model", model)
        )
        todo = cases(asyncio.run(read_signature(server, model)), length=length)
        asyncio.run(read_signature(winner, model))
        for number in range(rounds):
            # The server is idle meanwhile: it must not spin, and this would show it.
            raw.append(measure_raw(path, batch=batch, length=length, seconds=seconds))
            for case in todo:
                console.print(f"round {number + 1} of {rounds}: {case.name}")
                results.setdefault(case.name, []).append(run_case(case, server, model, seconds))
                if "padded" not in case.name:
                    name = f"winner: {case.name}"
                    results.setdefault(name, []).append(run_case(case, winner, model, seconds))
    console.print(report(raw, results))
    mixed, padded = (median_of(results[case.name], lambda result: result.inferences_per_s) or 0.0 for case in todo[-2:])
    if padded:
        console.print(f"mixed lengths against padding everything to {_LONGEST}: {mixed / padded:.2f} times the rate")
    for case in todo[:-1]:
        before, after = (
            median_of(results[name], lambda result: result.cpu_us_per_inference) or 0.0
            for name in (case.name, f"winner: {case.name}")
        )
        if after:
            console.print(f"{case.name}: the winner takes {before / after:.2f} times less server CPU")
    failed = sum(result.failed for case_results in results.values() for result in case_results)
    if output is not None:
        document = {
            "scan": [asdict(run) for run in scan],
            "raw": [asdict(run) for run in raw],
            "served": {name: [result.to_json() for result in entries] for name, entries in results.items()},
        }
        output.write_text(json.dumps(document, indent=2) + "\n")
    if failed:
        raise click.ClickException(f"{failed} requests failed")


def write_plain(model: Path, onnx: Path, target: Path) -> None:
    """A repository with the model as it was: its own configuration, plain fp32, ONNX Runtime."""
    (target / "1").mkdir(parents=True)
    config = (model / "config.pbtxt").read_text(encoding="utf-8")
    (target / "config.pbtxt").write_text(config + '\nbackend: "onnxruntime"\n', encoding="utf-8")
    shutil.copyfile(onnx, target / "1" / "model.onnx")


def _newest(folder: Path) -> Path:
    versions = [int(entry.name) for entry in folder.iterdir() if entry.is_dir() and entry.name.isdigit()]
    if not versions:
        raise click.ClickException(f"{folder} has no version: build it first (make demo)")
    return folder / str(max(versions)) / "model.onnx"


if __name__ == "__main__":
    main()
