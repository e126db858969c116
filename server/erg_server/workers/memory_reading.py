"""One look at a worker's memory, and how it is split: what it began with, what loading took, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from erg_server.devices.device import Device
from erg_server.devices.nvml import gpu_memory
from erg_server.devices.process_memory import ProcessMemory, process_memory

Version = tuple[str, str]
"""A model's name and version."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A process's memory on the host and on its GPU; None is what nobody tells, and on a CPU worker the GPU's."""

    process: ProcessMemory | None
    gpu_bytes: int | None = None

    def device_bytes(self, device: Device) -> int | None:
        """The memory that models are loaded into: a GPU's for its worker, else the process's own."""
        if device.kind == "gpu":
            return self.gpu_bytes
        return None if self.process is None else self.process.own_bytes


def read_memory(device: Device, pid: int) -> MemoryReading:
    """Look at a worker's process. Takes milliseconds: call it from a thread."""
    gpu_bytes = gpu_memory(device, pid).process_bytes if device.kind == "gpu" else None
    return MemoryReading(process_memory(pid), gpu_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownMemory:
    """What the front knows of a worker before it looks. `models` are by what loading each took.

    `base_bytes` is the device memory of its process without models, None before the first was loaded.
    """

    worker: str
    device: Device
    pid: int
    slab_bytes: int
    base_bytes: int | None
    models: Mapping[Version, int]


@dataclass(frozen=True, slots=True)
class MemoryShares:
    """Bytes of a worker by kind, their peaks where the kernel keeps them, and bytes by model."""

    kinds: Mapping[str, int]
    kernel_peaks: Mapping[str, int]
    models: Mapping[Version, int]


def split_memory(known: KnownMemory, reading: MemoryReading) -> MemoryShares:
    """Split a worker's device memory into base, loads and the rest: arenas, buffers, libraries that came later.

    The rest is a model's where it is the only one. Among several nobody tells whose it is, so it stays apart.
    """
    loads = sum(known.models.values())
    kinds = {"slab": known.slab_bytes, "models": loads}
    peaks: dict[str, int] = {}
    process = reading.process
    if process is not None:
        kinds["rss"], peaks["rss"] = process.rss_bytes, process.peak_rss_bytes
        if process.pss_bytes is not None:
            kinds["pss"] = process.pss_bytes
    if reading.gpu_bytes is not None:
        kinds["gpu"] = reading.gpu_bytes
    models = dict(known.models)
    device_bytes = reading.device_bytes(known.device)
    if known.base_bytes is not None and device_bytes is not None:
        rest = max(0, device_bytes - known.base_bytes - loads)
        kinds["base"], kinds["rest"] = known.base_bytes, rest
        if len(models) == 1:
            (only,) = models
            models[only] += rest
    return MemoryShares(kinds, peaks, models)
