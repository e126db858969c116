"""Which devices a model's instance groups name, and how many instances each gets."""

from __future__ import annotations

import pytest
from erg_server.devices.device import Device
from erg_server.errors import FailedPreconditionError
from erg_server.scheduling.instance_groups import instance_limits

from tests.server.scheduling.builders import ECHO, model_spec

CPUS = tuple(Device(kind="cpu", id=number, cores=(number,)) for number in range(3))
GPUS = (
    Device(kind="gpu", id=0, partition="mps0", mps_percent=50),
    Device(kind="gpu", id=0, partition="mps1", mps_percent=50),
    Device(kind="gpu", id=1),
)


def limits(groups: str, devices: tuple[Device, ...] = GPUS + CPUS) -> tuple[str, dict[str, int]]:
    found = instance_limits(model_spec(ECHO + groups), devices)
    return " ".join(found.devices), dict(found.counts)


@pytest.mark.parametrize(
    ("groups", "devices", "counts"),
    [
        ("", "gpu0.mps0 gpu0.mps1 gpu1", {}),
        ("instance_group { kind: KIND_CPU }", "cpu0 cpu1 cpu2", {}),
        ("instance_group { kind: KIND_CPU count: 2 }", "cpu0 cpu1 cpu2", {"cpu": 2}),
        ("instance_group { kind: KIND_CPU count: 9 }", "cpu0 cpu1 cpu2", {"cpu": 3}),
        ("instance_group { kind: KIND_GPU count: 2 }", "gpu0.mps0 gpu0.mps1 gpu1", {"gpu0": 2, "gpu1": 1}),
        ("instance_group { kind: KIND_GPU gpus: [ 1 ] }", "gpu1", {}),
        ("instance_group { kind: KIND_AUTO gpus: [ 1 ] count: 1 }", "gpu1", {"gpu1": 1}),
        ("instance_group { kind: KIND_MODEL }", "gpu0.mps0 gpu0.mps1 gpu1", {}),
        (
            "instance_group { kind: KIND_GPU gpus: [ 0 ] count: 1 } instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }",
            "gpu0.mps0 gpu0.mps1 gpu1",
            {"gpu0": 2, "gpu1": 1},
        ),
    ],
)
def test_a_group_counts_instances_on_each_device_it_names(groups: str, devices: str, counts: dict[str, int]) -> None:
    assert limits(groups) == (devices, counts)


def test_without_gpus_a_group_of_any_kind_is_the_cpus() -> None:
    assert limits("instance_group { gpus: [ 4 ] count: 2 }", CPUS) == ("cpu0 cpu1 cpu2", {"cpu": 2})


def test_a_device_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(FailedPreconditionError, match=r"kind GPU on GPUs \[7\]; this server has gpu0.mps0, .* cpu2"):
        limits("instance_group { kind: KIND_GPU gpus: [ 7 ] }")
