"""What a recipe published, served, against Triton's way: its plain fp32 ONNX served by ONNX Runtime, through Erg too.

    python -m bench.winner --recipe ../converters/recipes/minilm.toml --model-repository ../model_repo

Both are served at once, each by a server of its own, get the recipe's evaluation samples as requests and take turns.
First every answer is compared: outside of the recipe's own gate nothing is measured. Then CPU time of the servers'
processes a request, front and workers apart, and the ratio: medians of the rounds. Run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
from bench.minilm import median_of, write_plain
from bench.serving import Served, read_signature, served
from erg_converters.data import Dataset, load_table
from erg_converters.errors import ConversionError
from erg_converters.feeds import LENGTH_AXIS
from erg_converters.metrics import cosines, estimate, rows
from erg_converters.recipe import Recipe, read_recipe
from erg_converters.sources.load import load_source
from erg_loadtest.arrivals import ClosedLoop, Limit
from erg_loadtest.client import InferClient, Target
from erg_loadtest.load import LoadPlan, PreparedScenario, run_load
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.result import LoadResult
from erg_loadtest.tensors import Array, numpy_dtype
from erg_server.pb import inference_pb2
from erg_server.repository.layout import versions_on_disk
from rich.console import Console
from rich.table import Table

_IN_FLIGHT_CHECKED = 8


def samples_of(recipe: Recipe, length: int) -> Dataset:
    """The recipe's evaluation samples, which decided about the winner; of one length each, where that is not 0."""
    inputs = load_source(recipe).input_specs()
    data = load_table(recipe, "evaluation", inputs)
    if data is None:
        raise click.ClickException(f"{recipe.path} has no [evaluation] table: there is nothing to send")
    if not length:
        return data
    axes = {spec.name: axis for spec in inputs for axis, name in spec.dynamic.items() if name == LENGTH_AXIS}
    if not axes:
        raise click.ClickException(f"{recipe.publish.name} has no axis called {LENGTH_AXIS}: leave --length out")
    # Cut, or said again from its beginning: real values either way.
    samples = tuple(
        {
            name: np.take(array, np.arange(length) % array.shape[axes[name]], axis=axes[name])
            if name in axes
            else array
            for name, array in sample.items()
        }
        for sample in data.samples
    )
    return dataclasses.replace(data, samples=samples)


async def requests_of(server: Served, model: str, data: Dataset) -> tuple[Payload, ...]:
    """A request for each sample, once the model is ready."""
    signature = await read_signature(server, model)
    return tuple(build_payload(signature, sample, rows=1) for sample in data.samples)


async def answers_of(server: Served, requests: Sequence[Payload], output: str) -> list[Array]:
    """The output called so, or the first, of every answer; several requests at once, so that batches form."""
    found: list[Array] = []
    async with InferClient(Target(url=server.url)) as client:
        for begin in range(0, len(requests), _IN_FLIGHT_CHECKED):
            calls = [client.start(request.body) for request in requests[begin : begin + _IN_FLIGHT_CHECKED]]
            bodies = await asyncio.gather(*calls)
            found += [_output(inference_pb2.ModelInferResponse.FromString(body), output) for body in bodies]
    return found


def _output(response: inference_pb2.ModelInferResponse, name: str) -> Array:
    names = [each.name for each in response.outputs]
    index = names.index(name) if name else 0
    tensor = response.outputs[index]
    values = np.frombuffer(response.raw_output_contents[index], dtype=numpy_dtype(tensor.datatype))
    return values.reshape(tuple(tensor.shape))


def judged(recipe: Recipe, data: Dataset, plain: Sequence[Array], winner: Sequence[Array]) -> tuple[bool, str]:
    """Whether served answers keep the recipe's gate, and the figures."""
    gate = recipe.gate
    found = estimate(gate, plain, winner, data.labels)
    similar = cosines(rows(plain), rows(winner))
    kept = found.high <= gate.max_drop and float(similar.mean()) >= gate.min_cosine
    told = (
        f"{len(plain)} answers: cosine mean {similar.mean():.6f}, min {similar.min():.6f}; {gate.metric} "
        f"{found.value:.5f}, drop {found.drop:+.5f} [{found.low:+.5f}, {found.high:+.5f}], at most {gate.max_drop:g}"
    )
    return kept, told


def run_turn(server: Served, model: str, requests: tuple[Payload, ...], callers: int, seconds: float) -> LoadResult:
    """One turn of one server."""
    return run_load(
        LoadPlan(
            model=model,
            target=Target(url=server.url),
            arrivals=ClosedLoop(concurrency=callers),
            limit=Limit(duration_s=seconds),
            warmup=Limit(requests=len(requests)),
            scenario=PreparedScenario(payloads=requests),
            metrics_url=server.metrics_url,
        )
    )


def table_of(results: dict[tuple[str, int], list[LoadResult]], callers: Sequence[int]) -> Table:
    """Medians over the rounds, and how many times less the winner takes."""
    table = Table(title="CPU milliseconds of the server a request: medians of rounds taken in turns")
    for heading in ("callers", "served", "all", "front", "workers", "a second", "mean batch", "times less CPU"):
        table.add_column(heading, justify="right")
    for count in callers:
        before = median_of(results["plain", count], lambda result: result.cpu_us_per_inference)
        for name in ("plain", "winner"):
            rounds = results[name, count]
            cpu = median_of(rounds, lambda result: result.cpu_us_per_inference)
            front = median_of(rounds, lambda result: result.front_cpu_us_per_inference)
            workers = median_of(rounds, lambda result: result.workers_cpu_us_per_inference)
            rate = median_of(rounds, lambda result: result.inferences_per_s)
            batch = median_of(rounds, lambda result: result.mean_batch)
            ratio = f"{before / cpu:.2f}" if before and cpu else "unknown"
            figures = ("unknown" if each is None else f"{each / 1e3:.3f}" for each in (cpu, front, workers))
            rest = ("unknown" if each is None else f"{each:.1f}" for each in (rate, batch))
            table.add_row(str(count), name, *figures, *rest, ratio)
    return table


@click.command()
@click.option("--recipe", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--model-repository", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--callers", multiple=True, type=int, default=(1, 8, 32), show_default=True, help="Requests in flight.")
@click.option("--length", default=0, help="Cut or repeat every text to this many tokens.  [default: as they are]")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="For each variant in each round.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here as JSON.")
def main(
    *,
    path: Path,
    model_repository: Path,
    callers: tuple[int, ...],
    length: int,
    rounds: int,
    seconds: float,
    output: Path | None,
) -> None:
    """Serve what a recipe published beside its plain model, compare their answers, and measure both."""
    console = Console(soft_wrap=True, highlight=False)
    try:
        recipe = read_recipe(path)
        data = samples_of(recipe, length)
    except ConversionError as error:
        raise click.ClickException(error.message) from error
    model = recipe.publish.name
    folder = model_repository / model
    newest = max(versions_on_disk(folder), default=0) if folder.is_dir() else 0
    if not (folder / str(newest) / "model.onnx").is_file():
        raise click.ClickException(f"{folder} has no version with the plain model: erg convert run {path}")
    results: dict[tuple[str, int], list[LoadResult]] = {}
    with ExitStack() as stack:
        aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="erg-bench-")))
        write_plain(folder, folder / str(newest) / "model.onnx", aside / model)
        only = ("--model-control-mode", "explicit", "--load-model", model)
        servers = {
            "plain": stack.enter_context(served(aside, *only)),
            "winner": stack.enter_context(served(model_repository, *only)),
        }
        requests = {name: asyncio.run(requests_of(server, model, data)) for name, server in servers.items()}
        plain, winner = (
            asyncio.run(answers_of(server, requests[name], recipe.gate.output)) for name, server in servers.items()
        )
        kept, told = judged(recipe, data, plain, winner)
        console.print(told)
        if not kept:
            raise click.ClickException("the served winner's answers are not within the recipe's gate")
        for number in range(rounds):
            for count in callers:
                console.print(f"round {number + 1} of {rounds}: {count} in flight")
                for name, server in servers.items():
                    turn = run_turn(server, model, requests[name], count, seconds)
                    results.setdefault((name, count), []).append(turn)
    console.print(table_of(results, callers))
    if output is not None:
        document = {
            f"{name}, {count} in flight": [each.to_json() for each in found] for (name, count), found in results.items()
        }
        output.write_text(json.dumps({"answers": told, "rounds": document}, indent=2) + "\n")
    failed = sum(each.failed for found in results.values() for each in found)
    if failed:
        raise click.ClickException(f"{failed} requests failed")


if __name__ == "__main__":
    main()
