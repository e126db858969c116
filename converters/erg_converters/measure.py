"""What variants cost: CPU and wall time by batch size and length, taken in turns with the source, and memory.

Machines are shared and their clocks change, so that a time says little and a ratio within one run much: in each round
every variant runs the same feed once or more, the source among them. CPU time is the whole process's, so that a
backend's own threads are in it; of the rounds the least counts, which other programs disturbed least.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from erg_server.repository.manifest import Measurement

from erg_converters.report import SOURCE_CANDIDATE
from erg_converters.settings import MeasureSettings
from erg_converters.sources.base import Array, Feed

TURN_NS = 20_000_000
"""Least time of one turn: shorter ones measure the clock."""
MAX_REPEATS = 200
_MEMORY_TIMEOUT_S = 120.0


class Timed(Protocol):
    """What is timed; `runner.Runner` and the tests' fakes."""

    path: Path
    backend: str
    precision: str
    threads: int

    def run(self, feed: Feed) -> Sequence[Array]:
        """One batch."""
        ...


class Clocks(Protocol):
    """CPU time of this process and wall time, nanoseconds."""

    def cpu_ns(self) -> int:
        """CPU time so far, of all threads."""
        ...

    def wall_ns(self) -> int:
        """Monotonic time."""
        ...


class ProcessClocks:
    """The real ones."""

    def cpu_ns(self) -> int:
        """CPU time so far, of all threads."""
        return time.process_time_ns()

    def wall_ns(self) -> int:
        """Monotonic time."""
        return time.perf_counter_ns()


def measure(
    runners: Mapping[str, Timed],
    feeds: Mapping[tuple[int, int | None], Feed],
    settings: MeasureSettings,
    *,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
    clocks: Clocks | None = None,
    memory_of: Callable[[Timed, Feed], int | None] | None = None,
) -> list[Measurement]:
    """Time every variant on every feed.

    Args:
        runners: variants by name; "source" is what `cpu_ratio` is against.
        feeds: by batch size and length (None for a model without one).
        settings: rounds.
        advance: told how many of how many turns are done.
        clocks: for tests.
        memory_of: bytes that a variant takes; by default measured in a process of its own.

    Returns:
        A figure for each variant and feed. `latency_ms_p50` is the median of the rounds.
    """
    clocks = clocks or ProcessClocks()
    memory_of = memory_of or memory_bytes
    total = len(feeds) * settings.rounds * len(runners) + len(runners)
    done = 0
    largest = max(feeds.values(), key=lambda feed: sum(array.nbytes for array in feed.values()))
    memory: dict[str, int | None] = {}
    for name, runner in runners.items():
        memory[name] = memory_of(runner, largest)
        done += 1
        advance(done, total)
    measured: list[Measurement] = []
    for (batch, length), feed in feeds.items():
        repeats = {name: _repeats(runner, feed, clocks) for name, runner in runners.items()}
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
        for _ in range(settings.rounds):
            for name, runner in runners.items():
                turns[name].append(_turn(runner, feed, repeats[name], clocks))
                done += 1
                advance(done, total)
        source = turns.get(SOURCE_CANDIDATE)
        for name, runner in runners.items():
            measured.append(_figure(name, runner, batch, length, turns=turns[name], source=source, memory=memory[name]))
    return measured


def _repeats(runner: Timed, feed: Feed, clocks: Clocks) -> int:
    """How often a turn has to run the feed; the first run, which compiles and allocates, is not counted."""
    runner.run(feed)
    began = clocks.wall_ns()
    runner.run(feed)
    return max(1, min(MAX_REPEATS, -(-TURN_NS // max(1, clocks.wall_ns() - began))))


def _turn(runner: Timed, feed: Feed, repeats: int, clocks: Clocks) -> tuple[float, float]:
    """CPU and wall nanoseconds of one run."""
    cpu, wall = clocks.cpu_ns(), clocks.wall_ns()
    for _ in range(repeats):
        runner.run(feed)
    return (clocks.cpu_ns() - cpu) / repeats, (clocks.wall_ns() - wall) / repeats


def _figure(
    name: str,
    runner: Timed,
    batch: int,
    length: int | None,
    *,
    turns: Sequence[tuple[float, float]],
    source: Sequence[tuple[float, float]] | None,
    memory: int | None,
) -> Measurement:
    cpu_ns = min(cpu for cpu, _ in turns)
    wall_ns = statistics.median(wall for _, wall in turns)
    ratio = min(cpu for cpu, _ in source) / cpu_ns if source and cpu_ns else None
    return Measurement(
        device="cpu",
        backend=runner.backend,
        batch_size=batch,
        latency_ms_p50=wall_ns / 1e6,
        throughput_per_s=batch / (wall_ns / 1e9) if wall_ns else 0.0,
        memory_bytes=memory,
        variant=name,
        precision=runner.precision,
        length=length,
        threads=runner.threads,
        cpu_ms_per_row=cpu_ns / 1e6 / batch,
        cpu_ratio=ratio,
    )


def memory_bytes(runner: Timed, feed: Feed) -> int | None:
    """What a fresh process grows by when it loads the variant and runs the feed, at its peak; None if it cannot tell.

    In this process the variants share arenas and libraries, so that only the first would show.
    """
    request = {
        "path": str(runner.path),
        "backend": runner.backend,
        "precision": runner.precision,
        "threads": runner.threads,
        "feed": {name: [array.dtype.str, list(array.shape)] for name, array in feed.items()},
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "erg_converters.measure"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_MEMORY_TIMEOUT_S,
            check=True,
        )
        return int(done.stdout)
    except (subprocess.SubprocessError, ValueError, OSError):
        return None


def _grow() -> int:
    """The child of `memory_bytes`: its peak resident size after, less its size before. Values do not matter."""
    from erg_server.backends.registry import create_backend  # noqa: PLC0415

    from erg_converters.runner import Runner  # noqa: PLC0415

    request = json.loads(sys.stdin.read())
    create_backend(request["backend"])  # the library itself is not the model's
    feed = {name: np.ones(shape, dtype=np.dtype(dtype)) for name, (dtype, shape) in request["feed"].items()}
    before = _status_bytes("VmRSS")
    runner = Runner.open(Path(request["path"]), request["backend"], request["precision"], request["threads"])
    runner.run(feed)
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    print(_grow())  # noqa: T201 (the parent reads it)
