"""One thing to simulate: which models, on which devices, within what memory, for how long."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass

from erg_server.devices.device import Device, DeviceKind
from erg_server.devices.memory_budget import MemoryBudget
from erg_server.planning.catalogue import PlannedModel
from erg_server.planning.hardware import device_of, further_devices
from erg_server.scheduling.instance_groups import InstanceLimits, instance_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Equal scenarios have equal outcomes."""

    models: tuple[PlannedModel, ...]
    devices: tuple[Device, ...]
    budget: MemoryBudget
    seconds: float
    seed: int = 0

    @property
    def budgets(self) -> dict[str, int]:
        """Most bytes of each memory pool that has a bound."""
        return self.budget.pools(self.devices)

    def limits(self, model: PlannedModel) -> InstanceLimits:
        """Where a model may be."""
        return instance_limits(model.spec, self.devices)

    def kind(self, model: PlannedModel) -> DeviceKind:
        """The kind of device that a model runs on; it has instances on no other."""
        return device_of(model.spec, self.devices).kind

    def load(self, model: PlannedModel) -> float:
        """Device-seconds a second that a model's traffic takes at least, in batches of the size that is cheapest."""
        if model.traffic is None or model.times is None:
            return 0.0
        row_ns = model.times.row_ns(model.most_batch_rows)
        return model.traffic.rows_per_s(self.seconds) * row_ns / 1e9

    def requests(self) -> float:
        """How many requests there are to simulate, about."""
        return math.fsum(model.traffic.requests(self.seconds) for model in self.models if model.traffic is not None)

    def only(self, kind: DeviceKind) -> Scenario:
        """The part on one kind of device, which nothing on the others touches."""
        models = tuple(model for model in self.models if self.kind(model) == kind)
        devices = tuple(device for device in self.devices if device.kind == kind)
        return dataclasses.replace(self, models=models, devices=devices)

    def without(self, names: Collection[str]) -> Scenario:
        """The same with fewer models."""
        return dataclasses.replace(self, models=tuple(model for model in self.models if model.name not in names))

    def with_devices(self, kind: DeviceKind, count: int) -> Scenario:
        """The same with `count` more devices of a kind."""
        return dataclasses.replace(self, devices=further_devices(self.devices, kind, count))
