"""What `--devices` chooses."""

from __future__ import annotations

import pytest
from erg_server.devices.device import Device
from erg_server.devices.selection import select_devices
from erg_server.errors import InvalidArgumentError

FOUND = (
    Device(kind="gpu", id=0, gpu_uuid="GPU-a"),
    Device(kind="gpu", id=1, gpu_uuid="MIG-x", partition="mig0"),
    Device(kind="gpu", id=1, gpu_uuid="MIG-y", partition="mig3"),
    Device(kind="cpu", id=0, cores=(0,)),
    Device(kind="cpu", id=1, cores=(1,)),
)


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        (["cpu"], "cpu0 cpu1"),
        (["cpu1"], "cpu1"),
        (["gpu"], "gpu0 gpu1.mig0 gpu1.mig3"),
        (["gpu1.mig3, gpu0"], "gpu1.mig3 gpu0"),
        (["MIG-x", "cpu"], "gpu1.mig0 cpu0 cpu1"),
        (["gpu0:30%", "gpu0:70%"], "gpu0.mps0 gpu0.mps1"),
    ],
)
def test_devices_are_chosen_by_kind_name_or_uuid(stated: list[str], names: str) -> None:
    assert " ".join(device.name for device in select_devices(stated, FOUND)) == names


def test_shares_of_a_gpu_are_devices_with_its_memory() -> None:
    first, second = select_devices(["gpu0:30%,gpu0:70%"], FOUND)
    assert (first.mps_percent, second.mps_percent) == (30, 70)
    assert first.memory_pool == second.memory_pool == "gpu0"
    assert first.gpu_uuid == "GPU-a"


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        (["gpu7"], "no such device; there are gpu0, gpu1.mig0, gpu1.mig3, cpu"),
        ([""], "no such device"),
        (["cpu:50%"], "only a whole GPU has shares"),
        (["gpu1.mig0:50%"], "only a whole GPU has shares"),
        (["gpu0:60%", "gpu0:60%"], "gpu0 are 1 % to 100 % in all"),
        (["gpu0:0%"], "1 % to 100 %"),
        (["gpu0:50"], "no such device"),
        (["gpu0", "gpu0"], "gpu0 is used already"),
        (["gpu0", "gpu0:50%"], "gpu0 is used already"),
        (["gpu0:50%", "gpu0"], "gpu0.mps0 is used already"),
        (["cpu", "cpu0"], "cpu0 is used already"),
    ],
)
def test_what_cannot_be_is_told(stated: list[str], told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        select_devices(stated, FOUND)
