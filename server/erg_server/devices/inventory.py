"""Which devices this process may use: GPUs by NVML, else the CPU cores it was given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from erg_server.devices.device import Device
from erg_server.devices.nvml import find_gpus
from erg_server.devices.selection import select_devices
from erg_server.errors import InvalidArgumentError

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def find_devices(*, cpu_workers: int, threads_per_worker: int, stated: Sequence[str] = ()) -> tuple[Device, ...]:
    """The devices to start workers on.

    Args:
        cpu_workers: CPU workers to have; 0 for one a core set, and none where there are GPUs.
        threads_per_worker: cores in each set.
        stated: the devices that the operator chose, see `selection.select_devices`; () for all there are.

    Raises:
        InvalidArgumentError: a set needs more cores than this process may use, or a device is stated that is not there.
    """
    gpus = find_gpus()
    if gpus and not cpu_workers and not stated:
        return gpus
    cpus = divide_cores(
        tuple(sorted(os.sched_getaffinity(0))),
        usable_cores(CGROUP_QUOTA),
        workers=cpu_workers,
        threads=threads_per_worker,
    )
    return select_devices(stated, gpus + cpus) if stated else gpus + cpus


def divide_cores(cores: tuple[int, ...], quota: int | None, *, workers: int, threads: int) -> tuple[Device, ...]:
    """Disjoint core sets of `threads` cores; with more `workers` than sets, the sets are shared in turn.

    `quota` is how many cores' time the container may use, None for all: more workers than that would only wait.

    Raises:
        InvalidArgumentError: a set needs more cores than there are.
    """
    if threads > len(cores):
        raise InvalidArgumentError(f"--threads-per-worker is {threads}, and this process may use {len(cores)} cores")
    sets = [cores[at : at + threads] for at in range(0, len(cores) - threads + 1, threads)]
    usable = len(cores) if quota is None else min(quota, len(cores))
    count = workers or max(1, min(len(sets), usable // threads))
    return tuple(Device(kind="cpu", id=number, cores=sets[number % len(sets)]) for number in range(count))


def usable_cores(path: Path) -> int | None:
    """The container's CPU quota in whole cores (at least 1), None where there is none."""
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None
