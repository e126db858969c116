"""What a model's instance groups mean on the devices there are. Pure: a configuration and devices in, limits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from erg_server.devices.device import Device
from erg_server.errors import FailedPreconditionError
from erg_server.repository.spec import InstanceGroup, ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLimits:
    """The devices, by name, that may have an instance, and how many a host gets; no counts where the server chooses.

    An instance is a worker that has the model: it runs one batch and holds another ready. So a host, which is a GPU or
    this machine's cores, has at most as many instances of a model as it has workers.
    """

    devices: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


def instance_limits(spec: ModelSpec, devices: Sequence[Device]) -> InstanceLimits:
    """Where instances of a model may be, and how many.

    Counts of several groups for one GPU add up, as in Triton. A group without a count leaves it to the server; beside
    groups that have one it counts as 1. KIND_AUTO is GPUs where there are any of those it names, else the CPU.

    Raises:
        FailedPreconditionError: the machine has no such device.
    """
    groups = spec.instance_groups or (InstanceGroup(kind="AUTO"),)
    fitting: list[Device] = []
    counts: dict[str, int] = {}
    for group in groups:
        members = _members(group, devices)
        if not members:
            have = ", ".join(device.name for device in devices)
            raise FailedPreconditionError(
                f"model '{spec.name}' asks for instances of kind {group.kind}"
                f"{f' on GPUs {list(group.gpus)}' if group.gpus else ''}; this server has {have}"
            )
        fitting += [device for device in members if device not in fitting]
        for host in {device.host for device in members}:
            counts[host] = counts.get(host, 0) + _count(group, groups)
    names = tuple(device.name for device in devices if device in fitting)
    workers = {host: sum(device.host == host for device in fitting) for host in counts}
    limits = {host: min(count, workers[host]) for host, count in sorted(counts.items()) if count}
    return InstanceLimits(devices=names, counts=MappingProxyType(limits))


def _count(group: InstanceGroup, groups: Sequence[InstanceGroup]) -> int:
    return group.count or int(any(other.count for other in groups))


def _members(group: InstanceGroup, devices: Sequence[Device]) -> list[Device]:
    gpus = [device for device in devices if device.kind == "gpu" and (not group.gpus or device.id in group.gpus)]
    if group.kind == "GPU":
        return gpus
    cpus = [device for device in devices if device.kind == "cpu"]
    return cpus if group.kind == "CPU" else gpus or cpus
