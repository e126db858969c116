"""Which of the devices that were found the server uses, and what shares of a GPU are devices of their own."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError

_SHARE = re.compile(r"(.+):([0-9]{1,3})%")


def select_devices(stated: Sequence[str], found: Sequence[Device]) -> tuple[Device, ...]:
    """The devices that `--devices` names: `cpu` for the cores, a GPU or MIG instance by name or UUID, or a share.

    `gpu0:50%` is a share by MPS: a worker of its own whose kernels get that part of the GPU's threads. Its memory is
    the GPU's. Shares of one GPU are numbered as they are stated.

    Raises:
        InvalidArgumentError: there is no such device, it is stated twice, or its shares are more than the whole.
    """
    chosen: list[Device] = []
    for text in (part.strip() for each in stated for part in each.split(",")):
        share = _SHARE.fullmatch(text)
        name = share.group(1) if share else text
        matches = [device for device in found if name in {device.name, device.gpu_uuid, device.kind}]
        if not name or not matches:
            names = dict.fromkeys("cpu" if device.kind == "cpu" else device.name for device in found)
            have = ", ".join(names) or "none"
            raise InvalidArgumentError(f"--devices {text}: there is no such device; there are {have}")
        for device in matches:
            made = _share(device, int(share.group(2)), text, chosen) if share else device
            _check_once(made, chosen, text)
            chosen.append(made)
    return tuple(chosen)


def _share(device: Device, percent: int, text: str, chosen: Sequence[Device]) -> Device:
    if device.kind == "cpu" or device.partition:
        raise InvalidArgumentError(f"--devices {text}: only a whole GPU has shares by MPS")
    before = [other.mps_percent for other in chosen if other.host == device.host]
    if percent < 1 or sum(before) + percent > 100:
        raise InvalidArgumentError(f"--devices {text}: the shares of {device.name} are 1 % to 100 % in all")
    return dataclasses.replace(device, partition=f"mps{len(before)}", mps_percent=percent)


def _check_once(device: Device, chosen: Sequence[Device], text: str) -> None:
    for other in chosen:
        whole = not (device.mps_percent and other.mps_percent)
        if device.name == other.name or (whole and device.kind == "gpu" and device.memory_pool == other.memory_pool):
            raise InvalidArgumentError(f"--devices {text}: {other.name} is used already")
