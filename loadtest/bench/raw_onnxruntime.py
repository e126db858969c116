"""The rival that no server beats: ONNX Runtime in processes of its own, one pinned thread each, no transport.

    python -m bench.raw_onnxruntime model_repo/minilm/1/model.onnx --length 32 --batch 1 --batch 8

Every process runs the same batch over and over for the same window; the figure is CPU time per row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

_DTYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRun:
    """One batch size on all cores at once."""

    batch: int
    length: int
    processes: int
    inferences: int
    inferences_per_s: float
    cpu_us_per_inference: float


def measure_raw(model: Path, *, batch: int, length: int, seconds: float, cores: Sequence[int] | None = None) -> RawRun:
    """Run `batch` rows of `length` on each core (all of this process's by default) for `seconds`."""
    chosen = sorted(os.sched_getaffinity(0)) if cores is None else list(cores)
    children = [_start(model, batch=batch, length=length, seconds=seconds, core=core) for core in chosen]
    try:
        for child in children:
            _read(child)  # ready: loaded and warm
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        outcomes = [_read(child) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    inferences = sum(outcome["inferences"] for outcome in outcomes)
    return RawRun(
        batch=batch,
        length=length,
        processes=len(children),
        inferences=inferences,
        inferences_per_s=sum(outcome["inferences"] / outcome["wall_s"] for outcome in outcomes),
        cpu_us_per_inference=sum(outcome["cpu_s"] for outcome in outcomes) / inferences * 1e6,
    )


def best(runs: Sequence[RawRun]) -> RawRun:
    """The run with the least CPU time per row: the bar that served figures are held to."""
    return min(runs, key=lambda run: run.cpu_us_per_inference)


def _start(model: Path, *, batch: int, length: int, seconds: float, core: int) -> subprocess.Popen[str]:
    work = {"model": str(model), "batch": batch, "length": length, "seconds": seconds, "core": core}
    return subprocess.Popen(
        [sys.executable, "-m", "bench.raw_onnxruntime", "--child", json.dumps(work), str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _read(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of raw ONNX Runtime ended early, with code {child.wait()}")
    outcome: dict[str, Any] = json.loads(line)
    return outcome


def _child(work: dict[str, Any]) -> None:
    import onnxruntime  # noqa: PLC0415 - only the children need it

    os.sched_setaffinity(0, {work["core"]})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # As the server's workers run it: a spinning thread burns CPU that is nobody's inference.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(work["model"], options, providers=["CPUExecutionProvider"])
    feeds = {entry.name: _values(entry, work["batch"], work["length"]) for entry in session.get_inputs()}
    for _ in range(3):
        session.run(None, feeds)
    print("{}", flush=True)
    sys.stdin.readline()
    runs = 0
    cpu_s, start_s = time.process_time(), time.monotonic()
    while (wall_s := time.monotonic() - start_s) < work["seconds"]:
        session.run(None, feeds)
        runs += 1
    wall_s = time.monotonic() - start_s
    outcome = {"inferences": runs * work["batch"], "wall_s": wall_s, "cpu_s": time.process_time() - cpu_s}
    print(json.dumps(outcome), flush=True)


def _values(entry: Any, batch: int, length: int) -> Any:
    shape = [batch if axis == 0 else size if isinstance(size, int) else length for axis, size in enumerate(entry.shape)]
    dtype = _DTYPES[entry.type]
    if "mask" in entry.name:
        return np.ones(shape, dtype=dtype)
    if "type" in entry.name:
        return np.zeros(shape, dtype=dtype)
    generator = np.random.default_rng(0)
    return (generator.integers(1000, 29_000, size=shape) if dtype != np.float32 else generator.random(shape)).astype(
        dtype
    )


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--batch", "batches", type=int, multiple=True, default=(1, 2, 4, 8, 16), show_default=True)
@click.option("--length", default=32, show_default=True, help="What open sizes beside the batch axis become.")
@click.option("--seconds", default=5.0, show_default=True, help="For each batch size.")
@click.option("--child", hidden=True)
def main(model: Path, batches: tuple[int, ...], length: int, seconds: float, child: str | None) -> None:
    """Print CPU time per row and rows a second for each batch size, as JSON lines."""
    if child is not None:
        _child(json.loads(child))
        return
    runs = []
    for batch in batches:
        runs.append(measure_raw(model, batch=batch, length=length, seconds=seconds))
        print(json.dumps(asdict(runs[-1])), flush=True)
    print(json.dumps({"best": asdict(best(runs))}))


if __name__ == "__main__":
    main()
