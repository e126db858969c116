"""The server's CPU time, measured: from Erg's own /metrics, or from the process tree of any server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import psutil

from erg_loadtest.errors import ServerError
from erg_loadtest.metrics_page import MetricsPage, Sample, samples

METRIC = "erg_process_cpu_seconds_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuSeconds:
    """CPU time of the server's processes, user and system, since they started."""

    front: float
    by_worker: Mapping[str, float]

    def since(self, before: CpuSeconds) -> CpuSeconds | str:
        """The time spent after `before`, or why that cannot be told."""
        spent = {worker: seconds - before.by_worker.get(worker, 0.0) for worker, seconds in self.by_worker.items()}
        front = self.front - before.front
        if min(front, *spent.values(), 0.0) < 0 or not self.by_worker.keys() >= before.by_worker.keys():
            return "CPU time went back: a process of the server ended during the run"
        return CpuSeconds(front=front, by_worker=spent)


class CpuMeter(Protocol):
    """Reads the server's CPU time; blocking, so call it from a thread. Raises ServerError."""

    source: str

    def read(self) -> CpuSeconds:
        """CPU time so far."""
        ...


class MetricsCpuMeter:
    """Erg's own count, by process role."""

    def __init__(self, url: str) -> None:
        self._page = MetricsPage(url)
        self.source = f"measured: {METRIC} of {self._page.url}"

    def read(self) -> CpuSeconds:
        """Scrape once and add up by process role."""
        found = cpu_seconds(samples(self._page.fetch()))
        if found is None:
            raise ServerError(f"{self._page.url} has no {METRIC}")
        return found


def cpu_seconds(page: Iterable[Sample]) -> CpuSeconds | None:
    """What a page says of CPU time, None where it says nothing."""
    front = 0.0
    by_worker: dict[str, float] = {}
    found = False
    for sample in page:
        if sample.name != METRIC:
            continue
        found = True
        if sample.labels.get("process") == "front":
            front += sample.value
        else:
            worker = sample.labels.get("worker", "")
            by_worker[worker] = by_worker.get(worker, 0.0) + sample.value
    return CpuSeconds(front=front, by_worker=by_worker) if found else None


class ProcessTreeCpuMeter:
    """The kernel's count for a process of this machine and all its descendants, whatever server it is."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.source = f"measured: /proc, process {pid} and its descendants"

    def read(self) -> CpuSeconds:
        """The process itself counts as front, its descendants as workers."""
        try:
            front = psutil.Process(self._pid)
            front_seconds = _own_seconds(front)
            by_worker = {}
            for child in front.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    by_worker[str(child.pid)] = _own_seconds(child)
        except psutil.Error as error:
            raise ServerError(f"process {self._pid}: {error}") from error
        return CpuSeconds(front=front_seconds, by_worker=by_worker)


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
