"""Reads the server's counters again and again while a load runs, so that what it spent is known by the second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from erg_loadtest.errors import ServerError
from erg_loadtest.metrics_page import MetricsPage, lines_of
from erg_loadtest.server_cpu import METRIC, CpuSeconds, ProcessTreeCpuMeter

WATCHED = (
    METRIC, "erg_energy_", "erg_cost_", "erg_device_busy_seconds_", "erg_worker_memory_bytes",
    "erg_model_memory_bytes", "erg_process_resident_bytes", "nv_energy_consumption",
)  # fmt: skip
"""What names of samples are kept of a page begin with."""

_BLOCKS = 20
_SHORTEST_S = 0.25
_UNKNOWN_LENGTH_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The counters at one moment of this machine's monotonic clock: a page's lines, or a process tree's figures."""

    at_ns: int
    page: str | None = None
    cpu: CpuSeconds | None = None
    memory_bytes: int | None = None
    """Proportional set size of the process and its descendants, resident size where the kernel tells no other."""


def reading_interval_s(duration_s: float | None) -> float:
    """How long between two readings: twenty a run, for intervals need blocks, but never more than four a second."""
    return _UNKNOWN_LENGTH_S if duration_s is None else max(_SHORTEST_S, duration_s / _BLOCKS)


def page_reader(url: str) -> Callable[[], Reading]:
    """Reads a metrics page; parsing waits until the load is over, since it would take the client's CPU."""
    page = MetricsPage(url)

    def read() -> Reading:
        text = lines_of(page.fetch(), WATCHED)
        return Reading(at_ns=time.monotonic_ns(), page=text)

    return read


def process_reader(pid: int) -> Callable[[], Reading]:
    """Reads the kernel's figures of a process and its descendants."""
    meter = ProcessTreeCpuMeter(pid)

    def read() -> Reading:
        cpu = meter.read()
        return Reading(at_ns=time.monotonic_ns(), cpu=cpu, memory_bytes=_memory_bytes(pid))

    return read


class ServerWatch:
    """Takes a reading at its start, every `interval_s`, and at its end. An async context manager."""

    def __init__(self, read: Callable[[], Reading] | None, interval_s: float) -> None:
        self._read = read
        self._interval_s = interval_s
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self.readings: list[Reading] = []
        self.missing = "" if read is not None else "not asked for: give --metrics-url or --server-pid"

    async def __aenter__(self) -> Self:
        await self._take()
        if not self.missing:
            self._task = asyncio.create_task(self._repeat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._stop.set()
            await self._task
        if kind is None and not self.missing:
            await self._take()

    async def _repeat(self) -> None:
        while not self._stop.is_set():
            # Not cancelled at the end: a thread that reads would go on, beside the last reading.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._stop.wait()
            if not self._stop.is_set():
                await self._take()

    async def _take(self) -> None:
        if self._read is None:
            return
        try:
            self.readings.append(await asyncio.to_thread(self._read))
        except ServerError as error:
            # One that is missing only makes a block longer; a server that never answers has no first one.
            if not self.readings:
                self.missing = str(error)


def _memory_bytes(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        front = psutil.Process(pid)
        for process in (front, *front.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += _set_size(process)
    return total


def _set_size(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.AccessDenied, AttributeError):
        return int(process.memory_full_info().pss)
    return int(process.memory_info().rss)
