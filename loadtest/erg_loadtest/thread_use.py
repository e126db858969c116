"""How long this thread has wanted to run: on a CPU, or waiting for one."""

from __future__ import annotations

import time
from pathlib import Path

_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_NS_PER_S = 1_000_000_000


def thread_busy_s() -> float:
    """Seconds so far, by Linux' own account of the thread; where that is missing, its CPU time alone.

    CPU time would not tell a thread that others keep from its core: on a full machine a client that used 0.4 of one
    was the bottleneck all the same.
    """
    try:
        return parse_schedstat(_SCHEDSTAT.read_text())
    except (OSError, ValueError):
        return time.thread_time()


def parse_schedstat(text: str) -> float:
    """Seconds on a CPU plus seconds in its queue; raises ValueError for any other text."""
    running_ns, waiting_ns, _ = (int(field) for field in text.split())
    return (running_ns + waiting_ns) / _NS_PER_S
