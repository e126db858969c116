"""One device that a worker process may own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceKind = Literal["cpu", "gpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU, a part of one, or a set of CPU cores.

    `cores` are the CPU cores its worker pins itself to, () for no pinning. `id` is the GPU's index, or the number of
    the core set. `gpu_uuid` is what CUDA_VISIBLE_DEVICES calls it: NVML's UUID of the GPU or of the MIG instance, ""
    for a CPU. `partition` names the part of a GPU: mig0 a MIG instance, which has memory of its own, or mps0 a share of
    `mps_percent` % of its threads, which has not; "" for the whole. `memory_bytes` is what a GPU or a MIG instance has,
    0 where it is not known.
    """

    kind: DeviceKind
    id: int
    cores: tuple[int, ...] = ()
    gpu_uuid: str = ""
    partition: str = ""
    mps_percent: int = 0
    memory_bytes: int = 0

    @property
    def name(self) -> str:
        """How logs and metrics call it: cpu0, gpu1, gpu1.mig0."""
        return f"{self.host}.{self.partition}" if self.partition else f"{self.kind}{self.id}"

    @property
    def host(self) -> str:
        """What an instance group counts on: a GPU, or this machine's cores as one ("cpu")."""
        return "cpu" if self.kind == "cpu" else f"gpu{self.id}"

    @property
    def memory_pool(self) -> str:
        """Whose memory it uses: the machine's ("cpu"), a GPU's or a MIG instance's."""
        return self.name if self.partition.startswith("mig") else self.host

    @property
    def cuda_index(self) -> int:
        """What CUDA calls the GPU within the worker, which sees no other one where its UUID is known."""
        return 0 if self.gpu_uuid else self.id

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its worker's process: the GPU that CUDA sees, so that no context is made on another."""
        variables = {"CUDA_VISIBLE_DEVICES": self.gpu_uuid} if self.gpu_uuid else {}
        if self.mps_percent:
            variables["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(self.mps_percent)
        return variables

    @property
    def threads(self) -> int:
        """Threads a backend may use for one batch."""
        return max(1, len(self.cores))
