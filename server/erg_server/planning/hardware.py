"""The devices that a plan is for: those of this machine, or as many as one thinks of buying."""

from __future__ import annotations

import re
from collections.abc import Sequence

from erg_server.devices.device import Device, DeviceKind
from erg_server.devices.inventory import find_devices
from erg_server.devices.nvml import find_gpus
from erg_server.errors import InvalidArgumentError
from erg_server.repository.spec import ModelSpec
from erg_server.scheduling.instance_groups import instance_limits

MOST_DEVICES = 1024
_COUNTED = re.compile(r"([0-9]{1,6})x(cpu|gpu)([0-9]{0,4})")


def planned_devices(stated: Sequence[str], *, threads_per_worker: int) -> tuple[Device, ...]:
    """The devices that `--devices` of `erg plan` names.

    `4xcpu` are four CPU workers of `threads_per_worker` cores each and `2xgpu` two GPUs, whether or not there are any
    here; `2xgpu0` are two such as this machine's gpu0. Anything else is as in `erg serve --devices`; () is this
    machine's devices.

    Raises:
        InvalidArgumentError: there is no such device here, a count is 0 or too large, or it is a share by MPS, of which
            nothing was measured.
    """
    parts = [part.strip() for each in stated for part in each.split(",")]
    here = [part for part in parts if not _COUNTED.fullmatch(part)]
    devices: list[Device] = []
    if here or not parts:
        devices += _devices_here(here, threads_per_worker)
    for part in parts:
        if match := _COUNTED.fullmatch(part):
            count, kind, index = int(match.group(1)), match.group(2), match.group(3)
            if not 1 <= count <= MOST_DEVICES:
                raise InvalidArgumentError(f"--devices {part}: write a count from 1 to {MOST_DEVICES}, as in 4xcpu")
            devices += _copies(_like(part, kind, index, threads_per_worker), count, devices)
    if len(devices) > MOST_DEVICES:
        raise InvalidArgumentError(f"--devices: {len(devices)} devices are too many; a plan takes {MOST_DEVICES}")
    return tuple(devices)


def further_devices(devices: Sequence[Device], kind: DeviceKind, count: int) -> tuple[Device, ...]:
    """The devices, and `count` more such as the first of a kind."""
    like = next(device for device in devices if device.kind == kind)
    return (*devices, *_copies(like, count, devices))


def device_of(spec: ModelSpec, devices: Sequence[Device]) -> Device:
    """A device that the model may use; those of a model are alike."""
    name = instance_limits(spec, devices).devices[0]
    return next(device for device in devices if device.name == name)


def _devices_here(stated: Sequence[str], threads_per_worker: int) -> tuple[Device, ...]:
    try:
        devices = find_devices(cpu_workers=0, threads_per_worker=threads_per_worker, stated=stated)
    except InvalidArgumentError as error:
        if not stated:
            raise
        message = f"{error.message}; devices that are not here are written with a count, as 2xgpu or 4xcpu"
        raise InvalidArgumentError(message) from error
    for device in devices:
        if device.mps_percent:
            raise InvalidArgumentError(
                f"--devices {device.host}:{device.mps_percent}%: what a batch takes on a share of a GPU was not "
                f"measured, so that nothing can be planned for it; plan for {device.host} as a whole"
            )
    return devices


def _like(part: str, kind: str, index: str, threads_per_worker: int) -> Device:
    """What `part` of `--devices` asks for some of."""
    if kind == "cpu":
        if index:
            raise InvalidArgumentError(f"--devices {part}: CPU workers are alike; write {part.removesuffix(index)}")
        return Device(kind="cpu", id=0, cores=tuple(range(threads_per_worker)))
    if not index:
        return Device(kind="gpu", id=0)
    found = {gpu.name: gpu for gpu in find_gpus()}
    if (like := found.get(f"gpu{index}")) is None:
        have, fix = ", ".join(found) or "no GPU", part.removesuffix(index)
        raise InvalidArgumentError(f"--devices {part}: this machine has {have}; write {fix} for GPUs elsewhere")
    return like


def _copies(like: Device, count: int, devices: Sequence[Device]) -> tuple[Device, ...]:
    first = max((device.id for device in devices if device.kind == like.kind), default=-1) + 1
    return tuple(
        Device(kind=like.kind, id=first + number, cores=like.cores, memory_bytes=like.memory_bytes)
        for number in range(count)
    )
