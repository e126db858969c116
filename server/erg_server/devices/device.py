"""One device that a worker process may own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, or a set of CPU cores.

    `cores` are the CPU cores its worker pins itself to, () for no pinning. `id` is the GPU's index, or the number of
    the core set; `gpu_uuid` is NVML's, "" for a CPU.
    """

    kind: DeviceKind
    id: int
    cores: tuple[int, ...] = ()
    gpu_uuid: str = ""

    @property
    def name(self) -> str:
        """How logs and metrics call it: cpu0, gpu1."""
        return f"{self.kind}{self.id}"

    @property
    def threads(self) -> int:
        """Threads a backend may use for one batch."""
        return max(1, len(self.cores))
