"""A recorded run of a server: the CPU time of its processes at each sample, and the batches that ended in between.

Record one anew with `python -m tests.server.energy.trace`: it serves a tiny model on two workers, half of the time
under load, and writes what the meter saw beside this file.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRACE = Path(__file__).parent / "trace.json.gz"


@dataclass(frozen=True, slots=True)
class Step:
    """One sample: CPU time so far by process (`front`, `cpu0`, …), hand-overs and ends of batches since the last."""

    now_ns: int
    cpu_ns: dict[str, int]
    handed: list[tuple[str, int]]
    ended: list[tuple[str, str, int, int, list[list[Any]]]]


def read_trace() -> list[Step]:
    with gzip.open(TRACE, "rt", encoding="utf-8") as file:
        return [Step(*step) for step in json.load(file)]


def replayed_events(step: Step) -> Iterator[tuple[str, Any]]:
    """Hand-overs and ends of a step in the order of their times, each before what it must come before."""
    events: list[tuple[int, int, tuple[str, Any]]] = [
        (at_ns, 0, ("handed", (device, at_ns))) for device, at_ns in step.handed
    ]
    events += [(each[3], 1, ("ended", each)) for each in step.ended]
    return (event for _, _, event in sorted(events, key=lambda event: event[:2]))


async def record(root: Path, seconds: float = 6.0) -> list[list[Any]]:
    """Run a real server in this process and keep all that its meter is told."""
    import numpy as np
    import tritonclient.grpc.aio as triton
    from erg_server import lifecycle
    from erg_server.bootstrap import build_server
    from erg_server.settings import merge

    from tests.e2e.conftest import MLP_CONFIG
    from tests.e2e.server_process import write_mlp
    from tests.e2e.test_lifecycle import fp32

    write_mlp(root / "mlp" / "1")
    (root / "mlp" / "config.pbtxt").write_text(MLP_CONFIG.replace('label_filename: "labels.txt"', ""))
    stated = {"model_repository": (str(root),), "cpu_workers": 2, "power_watts": ("cpu=20:95",)}
    ports = {"grpc_port": 0, "metrics_port": 0, "grpc_address": "127.0.0.1", "metrics_address": "127.0.0.1"}
    server = build_server(merge(stated | ports))
    meter = server.energy
    assert meter is not None
    steps: list[list[Any]] = []
    handed: list[tuple[str, int]] = []
    ended: list[list[Any]] = []
    log, really_handed, really_ended, really_sample = meter._log, meter._log.handed, meter._log.ended, meter.sample

    def note_handed(device: str, now_ns: int) -> None:
        handed.append((device, now_ns))
        really_handed(device, now_ns)

    def note_ended(device: str, model: str, version: str, **times: Any) -> None:
        ended.append([device, model, times["start_ns"], times["end_ns"], times["shares"]])
        really_ended(device, model, version, **times)

    def note_sample() -> None:
        really_sample()
        cpu_ns = {"front": meter._front.total_ns} | {name: each.total_ns for name, each in meter._times.items()}
        steps.append([meter.domains[0]._last_ns, cpu_ns, handed[:], ended[:]])
        handed.clear()
        ended.clear()

    log.handed, log.ended, meter.sample = note_handed, note_ended, note_sample  # type: ignore[method-assign]
    try:
        await lifecycle.start(server)
        x = np.ones((3, 16), np.float32)
        async with triton.InferenceServerClient(server.transports[0].addresses[0]) as client:
            for _ in range(2):
                until_s = asyncio.get_running_loop().time() + seconds / 4
                while asyncio.get_running_loop().time() < until_s:
                    await asyncio.gather(*(client.infer("mlp", [fp32(x)]) for _ in range(4)))
                    await asyncio.sleep(0.01)
                await asyncio.sleep(seconds / 4)
    finally:
        await lifecycle.close(server)
    return steps


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        steps = asyncio.run(record(Path(folder)))
    with TRACE.open("wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
        packed.write(json.dumps(steps).encode())
    sys.stdout.write(f"{len(steps)} samples, {sum(len(step[3]) for step in steps)} batches\n")


if __name__ == "__main__":
    main()
