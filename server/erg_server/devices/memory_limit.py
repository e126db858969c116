"""How much memory this process's control group may use and uses, as the kernel's out-of-memory killer sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import psutil

from erg_server.telemetry.limit_families import LimitSample

_NO_LIMIT_BYTES: Final = 1 << 60
"""Version 1 has no word for no limit: it says the largest number of pages."""


class HostMemory(Protocol):
    """Bytes of the host's memory, as psutil tells them."""

    @property
    def total(self) -> int:
        """All of it."""
        ...

    @property
    def available(self) -> int:
        """What could be had without swapping."""
        ...


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """Where a version of control groups keeps memory: its folder, and the names of what is in it."""

    folder: str
    limit: str
    usage: str
    inactive: str


_VERSION_2: Final = _Hierarchy("", "memory.max", "memory.current", "inactive_file")
_VERSION_1: Final = _Hierarchy("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def read_memory_limit(
    groups: Path = Path("/proc/self/cgroup"),
    mounts: Path = Path("/sys/fs/cgroup"),
    host: Callable[[], HostMemory] = psutil.virtual_memory,
) -> LimitSample:
    """The closest limit over this process: of its control group, of one around that, or the host's memory.

    What is used is the working set of whatever the limit is for, as the kubelet counts it: usage without the file pages
    that the kernel would drop first.
    """
    memory = host()
    closest = LimitSample(scope="host", limit_bytes=memory.total, used_bytes=memory.total - memory.available)
    for folder, names in _folders(groups, mounts):
        sample = _sample(folder, names)
        if sample is not None and sample.limit_bytes < closest.limit_bytes:
            closest = sample
    return closest


def _folders(groups: Path, mounts: Path) -> list[tuple[Path, _Hierarchy]]:
    """The process's own group and every one around it.

    In a container the path may be the host's, which is not there: the mount's root is the container's own group then.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = _VERSION_1 if "memory" in controllers.split(",") else _VERSION_2 if not controllers else None
        if names is None:
            continue
        root = mounts / names.folder
        own = root / path.lstrip("/")
        found += [(folder, names) for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return found


def _sample(folder: Path, names: _Hierarchy) -> LimitSample | None:
    """The group's limit and working set, None where it has no limit or does not tell."""
    try:
        limit = (folder / names.limit).read_text(encoding="ascii").strip()
        if not limit.isdigit() or int(limit) >= _NO_LIMIT_BYTES:
            return None
        usage = int((folder / names.usage).read_text(encoding="ascii"))
        stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        used = max(0, usage - int(stat[names.inactive]))
    except (OSError, ValueError, KeyError):
        return None
    return LimitSample(scope="container", limit_bytes=int(limit), used_bytes=used)
