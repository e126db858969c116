"""What a plan predicts: for each model, each device and each memory. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from erg_server.planning.catalogue import PlannedModel

ATTAINMENT = 0.99
"""The share of all requests that an objective asks to be answered in time, refused ones counting as not."""

Status = Literal["met", "missed", "no objective", "falls behind", "no memory", "no traffic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelForecast:
    """One version. Rates are requests a second, shares are of the requests offered, times are of the answers.

    `goodput_per_s` counts answers within the objective, all of them where there is none. `load` is device-seconds a
    second. Times are None where nothing was answered.
    """

    model: PlannedModel
    devices: tuple[str, ...]
    status: Status
    requests: int = 0
    offered_per_s: float = 0.0
    goodput_per_s: float = 0.0
    in_time_share: float = 1.0
    refused_share: float = 0.0
    dropped_share: float = 0.0
    late_share: float = 0.0
    p50_ns: int | None = None
    p99_ns: int | None = None
    load: float = 0.0

    @property
    def unmet(self) -> bool:
        """Whether the plan fails for this model."""
        return self.status in {"missed", "falls behind", "no memory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceForecast:
    """One device: the share of the time in which it runs batches, and the models that it has."""

    name: str
    kind: str
    utilization: float
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """One memory: bytes of the models placed there, its budget, and what the hardware has; None where unknown."""

    pool: str
    used_bytes: int
    budget_bytes: int | None
    capacity_bytes: int | None

    @property
    def exceeded(self) -> bool:
        """Whether the models take more than there is. The server bounds nothing without a budget."""
        return self.capacity_bytes is not None and self.used_bytes > self.capacity_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Everything predicted of one scenario."""

    models: tuple[ModelForecast, ...]
    devices: tuple[DeviceForecast, ...]
    memory: tuple[MemoryForecast, ...]

    @property
    def unmet(self) -> tuple[str, ...]:
        """The models that the plan fails for."""
        return tuple(each.model.name for each in self.models if each.unmet)

    @property
    def met(self) -> bool:
        """Whether every objective is met, every load carried, and memory suffices."""
        return not self.unmet and not any(memory.exceeded for memory in self.memory)
