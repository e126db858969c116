"""CPU time of processes, to the nanosecond where the system tells it: what /proc counts is in steps of 10 ms."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

STAT = Path("/proc/stat")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def process_cpu_ns(pid: int) -> int | None:
    """CPU time of a process so far, all of its threads; None for one that is gone."""
    try:
        # The clock of another process: its id as the kernel codes it (clock_getcpuclockid).
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return _counted_ns(pid)


def _counted_ns(pid: int) -> int | None:
    """The same where there is no such clock."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return round((times.user + times.system) * 1e9)


def machine_cpu_ns(path: Path = STAT) -> int | None:
    """CPU time of everything on this machine so far; None where the system does not tell."""
    try:
        with path.open(encoding="ascii") as file:
            fields = file.readline().split()
        user, nice, system, _, _, irq, softirq = (int(field) for field in fields[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) * _TICK_NS


class ProcessTime:
    """CPU time of what a name stands for over all of its processes: a worker that restarts goes on counting."""

    def __init__(self) -> None:
        self.total_ns = 0
        self._pid: int | None = None
        self._last_ns = 0

    def observe(self, pid: int | None, cpu_ns: int | None) -> int:
        """Take in a reading and return what came since the last one. A new process counts from its start."""
        if pid is None or cpu_ns is None:
            return 0
        if pid != self._pid:
            self._pid, self._last_ns = pid, 0
        step_ns = max(0, cpu_ns - self._last_ns)
        self._last_ns = cpu_ns
        self.total_ns += step_ns
        return step_ns
