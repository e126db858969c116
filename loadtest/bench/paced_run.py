"""Clients that send at once to one server: what became of each request, and who had how much of the machine's cores."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import psutil
from bench.paced_client import PacedClient, Stream
from bench.server_counts import Counts, read_counts
from bench.serving import Served
from erg_loadtest.arrivals import NS_PER_S
from erg_loadtest.samples import STATUS_NAMES, Int64s, Samples, summarise_ns
from erg_loadtest.server_cpu import CpuSeconds, ProcessTreeCpuMeter
from rich.console import Console

REFUSED = STATUS_NAMES.index("RESOURCE_EXHAUSTED")
DROPPED = STATUS_NAMES.index("DEADLINE_EXCEEDED")
_LEAD_NS = 50_000_000
"""From telling the clients until they start together."""
_DRAIN_S = 120.0
"""How long answers may take after the last request was due: without objectives nothing is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What became of one stream."""

    samples: Samples
    client_cpu_s: float
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run: its streams by model, and what each kind of process had of a core."""

    wall_s: float
    parts: Mapping[str, Part]
    front_cpu_s: float
    workers_cpu_s: float
    others_cpu_s: float

    @property
    def client_cpu_s(self) -> float:
        """Of all clients."""
        return sum(part.client_cpu_s for part in self.parts.values())


@dataclass(slots=True, kw_only=True)
class Bench:
    """What all runs share."""

    console: Console
    client: Path
    folder: Path
    tree_pids: list[int] = field(default_factory=list)
    """Servers of this benchmark; what is spent besides them and the clients is others'."""

    def run(self, title: str, server: Served, streams: Sequence[Stream], seconds: float) -> Run:
        """Send all streams at once and wait for every answer."""
        self.console.print(f"{time.strftime('%H:%M:%S')} {title}, {seconds:g} s", highlight=False)
        before = {stream.model: asyncio.run(read_counts(server, stream.model)) for stream in streams}
        with ExitStack() as stack:
            senders = [
                stack.enter_context(PacedClient(self.client, self.folder / f"{index}", server.url, stream, seconds))
                for index, stream in enumerate(streams)
            ]
            meter = ProcessTreeCpuMeter(server.pid)
            cpu_before, ours_before, all_before = meter.read(), self._ours_s(), busy_s()
            start_ns = time.monotonic_ns() + _LEAD_NS
            for sender in senders:
                sender.start(start_ns)
            ended = [sender.wait(seconds + _DRAIN_S) for sender in senders]
            wall_s = (time.monotonic_ns() - start_ns) / NS_PER_S
            cpu, ours_s, all_s = meter.read(), self._ours_s(), busy_s()
        spent = cpu.since(cpu_before)
        if not isinstance(spent, CpuSeconds):
            raise click.ClickException(spent)
        clients_s = sum(cpu_s for _, cpu_s in ended)
        return Run(
            wall_s=wall_s,
            parts={
                stream.model: Part(
                    samples=samples,
                    client_cpu_s=cpu_s,
                    counts=asyncio.run(read_counts(server, stream.model)).since(before[stream.model]),
                )
                for stream, (samples, cpu_s) in zip(streams, ended, strict=True)
            },
            front_cpu_s=spent.front,
            workers_cpu_s=sum(spent.by_worker.values()),
            others_cpu_s=max(0.0, all_s - all_before - (ours_s - ours_before) - clients_s),
        )

    def _ours_s(self) -> float:
        own = sum(psutil.Process().cpu_times()[:2])
        trees = [ProcessTreeCpuMeter(pid).read() for pid in self.tree_pids]
        return own + sum(tree.front + sum(tree.by_worker.values()) for tree in trees)


def busy_s() -> float:
    """CPU seconds that the machine's cores have spent on anything."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def answered_per_s(run: Run, model: str) -> float:
    """Answers a second until the last one."""
    samples = run.parts[model].samples
    return int(samples.succeeded.sum()) / (samples.window_ns() / NS_PER_S)


def latencies_ns(samples: Samples) -> Int64s:
    """Of the answered, from due to done."""
    good = samples.succeeded
    return samples.done_ns[good] - samples.due_ns[good]


def cores(runs: Sequence[Run]) -> list[str]:
    """What front, workers, client and others had, in percent of one core."""
    wall_s = sum(run.wall_s for run in runs)
    figures = ("front_cpu_s", "workers_cpu_s", "client_cpu_s", "others_cpu_s")
    return [f"{sum(getattr(run, figure) for run in runs) / wall_s:.0%}" for figure in figures]


def lateness_ms(runs: Sequence[Run]) -> float:
    """The 99th percentile of how much after its time a request was sent, of all streams."""
    late = [part.samples.sent_ns - part.samples.due_ns for run in runs for part in run.parts.values()]
    return percentile_ms(np.concatenate(late), 99)


def percentile_ms(durations_ns: Int64s, percentile: float) -> float:
    """One of `samples.PERCENTILES`, in milliseconds; NaN of nothing."""
    summary = summarise_ns(durations_ns)
    return math.nan if summary is None else summary.percentile_us(percentile) / 1e3
