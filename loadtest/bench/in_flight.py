"""What requests in flight cost in memory: the peak of the front and of the workers, as a multiple of their payloads.

    python -m bench.in_flight

A fresh server for each load, since memory that a peak left is used again. Needs the C++ client of bench/cpp.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click
from bench.build import built
from bench.memory import worker_processes
from bench.serving import Served, served
from erg_loadtest.client import InferClient, Target
from rich.console import Console
from rich.table import Table

MODEL = "in_flight_identity"
CONFIG = """backend: "identity"
max_batch_size: 64
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
dynamic_batching { }
"""
LOADS = ((600_000, 8), (600_000, 64), (8_000_000, 8))
"""Bytes of a request, and requests in flight."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_EVERY_S = 0.002


@dataclass(slots=True, kw_only=True)
class Memory:
    """Bytes in use, memory of its own and memory shared with other processes (the slab) apart."""

    own: int = 0
    shared: int = 0

    @classmethod
    def of(cls, pid: int) -> Memory:
        """What a process uses now; nothing for one that is gone."""
        with contextlib.suppress(OSError):
            resident, shared = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3]
            return cls(own=(int(resident) - int(shared)) * _PAGE_BYTES, shared=int(shared) * _PAGE_BYTES)
        return cls()

    def rise(self, other: Memory) -> None:
        """Keep the higher of each."""
        self.own, self.shared = max(self.own, other.own), max(self.shared, other.shared)

    def over(self, other: Memory) -> Memory:
        """What this is more."""
        return Memory(own=self.own - other.own, shared=self.shared - other.shared)


class Peaks:
    """Follows the memory of processes from a thread of its own."""

    def __init__(self, pids: list[int]) -> None:
        self.peaks = {pid: Memory.of(pid) for pid in pids}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._ended.wait(_EVERY_S):
            for pid, peak in self.peaks.items():
                peak.rise(Memory.of(pid))


def measure(server: Served, client: Path, nbytes: int, in_flight: int, seconds: float) -> tuple[Memory, Memory]:
    """How far the front and the workers together rise under a load."""
    workers = [process.pid for process in worker_processes(server.pid)]
    before = {pid: Memory.of(pid) for pid in (server.pid, *workers)}
    command = [str(client), server.url, MODEL, str(nbytes // 4), str(in_flight), str(min(4, in_flight)), str(seconds)]
    with Peaks([server.pid, *workers]) as followed:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    growth = {pid: peak.over(before[pid]) for pid, peak in followed.peaks.items()}
    return growth[server.pid], Memory(
        own=sum(growth[pid].own for pid in workers), shared=sum(growth[pid].shared for pid in workers)
    )


async def _ready(url: str) -> None:
    async with InferClient(Target(url=url)) as client:
        await client.wait_ready(MODEL, "", 60.0)


@click.command()
@click.option("--seconds", default=4.0, show_default=True, help="Length of one load.")
@click.option("--workers", default=2, show_default=True)
@click.option("--build", type=click.Path(path_type=Path), default=None, help="Where the C++ client is built.")
def main(seconds: float, workers: int, build: Path | None) -> None:
    """Measure every load and print a table: memory as multiples of the bytes in flight."""
    client = built("load_client", build)
    table = Table("load", "in flight MB", "front's own", "slab in the front", "workers' own", "slab in the workers")
    for nbytes, in_flight in LOADS:
        with tempfile.TemporaryDirectory(prefix="erg-in-flight-") as folder:
            root = Path(folder)
            (root / MODEL / "1").mkdir(parents=True)
            (root / MODEL / "config.pbtxt").write_text(CONFIG)
            with served(root, "--cpu-workers", str(workers)) as server:
                asyncio.run(_ready(server.url))
                front, behind = measure(server, client, nbytes, in_flight, seconds)
        payload = nbytes * in_flight
        table.add_row(
            f"{in_flight} of {nbytes / 1e6:g} MB",
            f"{payload / 1e6:.1f}",
            *(f"{size / payload:.2f}" for size in (front.own, front.shared, behind.own, behind.shared)),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
