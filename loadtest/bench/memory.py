"""The resident memory of a server's processes over a run, and whether it stayed flat."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from typing import Any

import psutil

_WORKER_MODULE = "erg_server.workers"
_ALLOWED_SHARE = 0.05
_ALLOWED_BYTES = 8 << 20
"""What an allocator's pools may still move by; a leak of one kilobyte a request is far above it in 50,000."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """Resident bytes at one point of the run."""

    progress: float
    front_bytes: int
    workers_bytes: int


def worker_processes(server_pid: int) -> list[psutil.Process]:
    """The server's live worker processes, oldest first."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(server_pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                is_worker = any(_WORKER_MODULE in part for part in child.cmdline())
                if is_worker and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
    return sorted(found, key=lambda process: (process.create_time(), process.pid))


class MemoryWatch:
    """Collects samples and compares the run's last quarter with its second."""

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._samples: list[MemorySample] = []

    def sample(self, progress: float) -> None:
        """Read the memory now; `progress` runs from 0 to 1."""
        workers_bytes = 0
        for worker in worker_processes(self._server_pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                workers_bytes += worker.memory_info().rss
        self.add(
            MemorySample(
                progress=progress,
                front_bytes=psutil.Process(self._server_pid).memory_info().rss,
                workers_bytes=workers_bytes,
            )
        )

    def add(self, sample: MemorySample) -> None:
        """Take a sample that was read elsewhere."""
        self._samples.append(sample)

    def growth(self) -> list[str]:
        """A sentence for each role whose memory grew; the first quarter is left out, for start-up and disturbances."""
        found = []
        for role in ("front", "workers"):
            early = self._median(role, 0.25, 0.5)
            late = self._median(role, 0.75, 1.0)
            if early is None or late is None:
                found.append(f"memory of the {role}: too few samples to say anything")
            elif late - early > _ALLOWED_BYTES + _ALLOWED_SHARE * early:
                found.append(f"memory of the {role} grew from {early / 2**20:.1f} to {late / 2**20:.1f} MiB")
        return found

    def to_json(self) -> dict[str, Any]:
        """The medians that the verdict compares, and the peak, in bytes."""
        return {
            role: {
                "second_quarter_bytes": self._median(role, 0.25, 0.5),
                "last_quarter_bytes": self._median(role, 0.75, 1.0),
                "peak_bytes": max((self._bytes(sample, role) for sample in self._samples), default=None),
            }
            for role in ("front", "workers")
        }

    def _median(self, role: str, start: float, end: float) -> float | None:
        values = [self._bytes(sample, role) for sample in self._samples if start <= sample.progress <= end]
        return statistics.median(values) if values else None

    @staticmethod
    def _bytes(sample: MemorySample, role: str) -> int:
        return sample.front_bytes if role == "front" else sample.workers_bytes
