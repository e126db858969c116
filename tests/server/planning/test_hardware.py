from __future__ import annotations

import pytest
from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError
from erg_server.planning import hardware
from erg_server.planning.hardware import further_devices, planned_devices

GPU = Device(kind="gpu", id=0, gpu_uuid="GPU-1", memory_bytes=80 << 30)


def planned(*stated: str, threads: int = 1) -> tuple[Device, ...]:
    return planned_devices(stated, threads_per_worker=threads)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "find_gpus", lambda: (GPU,))


def test_a_count_needs_no_such_devices_here() -> None:
    devices = planned("2xcpu,3xgpu")
    assert [device.name for device in devices] == ["cpu0", "cpu1", "gpu0", "gpu1", "gpu2"]


def test_cpu_workers_have_the_threads_that_were_stated() -> None:
    assert [device.threads for device in planned("2xcpu", threads=4)] == [4, 4]


def test_counts_of_one_kind_add_up_and_names_stay_apart() -> None:
    assert [device.name for device in planned("1xcpu", "2xcpu")] == ["cpu0", "cpu1", "cpu2"]


@pytest.mark.usefixtures("one_gpu")
def test_gpus_such_as_one_here_have_its_memory() -> None:
    assert [(device.name, device.memory_bytes) for device in planned("2xgpu0")] == [
        ("gpu0", 80 << 30),
        ("gpu1", 80 << 30),
    ]


def test_without_a_statement_they_are_those_here() -> None:
    assert planned()


def test_further_devices_are_like_those_there_are() -> None:
    assert [device.name for device in further_devices(planned("1xcpu", "1xgpu"), "cpu", 2)] == [
        "cpu0", "gpu0", "cpu1", "cpu2"
    ]  # fmt: skip


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("0xcpu", "write a count from 1 to 1024"),
        ("9999xgpu", "write a count from 1 to 1024"),
        ("600xcpu,600xgpu", "1200 devices are too many"),
        ("2xcpu1", "CPU workers are alike; write 2xcpu"),
        ("2xgpu7", "this machine has gpu0; write 2xgpu for GPUs elsewhere"),
        ("tpu", "there is no such device; there are"),
        ("tpu", "devices that are not here are written with a count, as 2xgpu or 4xcpu"),
    ],
)
def test_what_there_cannot_be_is_told_with_the_fix(stated: str, told: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        planned(stated)
    assert told in caught.value.message


def test_a_share_of_a_gpu_is_refused_since_nothing_was_measured_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    share = Device(kind="gpu", id=0, partition="mps0", mps_percent=50)
    monkeypatch.setattr(hardware, "find_devices", lambda **_: (share,))
    with pytest.raises(InvalidArgumentError, match="share of a GPU was not measured"):
        planned("gpu0:50%")
