"""Which devices this process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from erg_server.devices import inventory
from erg_server.devices.device import Device
from erg_server.devices.inventory import divide_cores, find_devices, usable_cores
from erg_server.errors import InvalidArgumentError
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.server.devices.fake_nvml import FakeGpu, FakeNvml


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7, 2, 4, 5})
    monkeypatch.setattr(inventory, "CGROUP_QUOTA", tmp_path / "none")


@pytest.mark.usefixtures("no_gpu", "four_cores")
def test_a_worker_a_core_of_those_this_process_was_given() -> None:
    devices = find_devices(cpu_workers=0, threads_per_worker=1)
    assert [device.cores for device in devices] == [(2,), (4,), (5,), (7,)]
    assert [device.name for device in devices] == ["cpu0", "cpu1", "cpu2", "cpu3"]
    assert {device.threads for device in devices} == {1}


@pytest.mark.usefixtures("no_gpu", "four_cores")
def test_wider_workers_take_neighbouring_cores() -> None:
    devices = find_devices(cpu_workers=0, threads_per_worker=2)
    assert [device.cores for device in devices] == [(2, 4), (5, 7)]
    assert {device.threads for device in devices} == {2}


@pytest.mark.usefixtures("no_gpu", "four_cores")
@pytest.mark.parametrize(
    ("workers", "expected"), [(1, [(2, 4, 5)]), (2, [(2, 4, 5), (2, 4, 5)])], ids=["one", "shared"]
)
def test_as_many_workers_as_were_asked_for(workers: int, expected: list[tuple[int, ...]]) -> None:
    assert [device.cores for device in find_devices(cpu_workers=workers, threads_per_worker=3)] == expected


@pytest.mark.usefixtures("no_gpu", "four_cores")
def test_more_threads_than_cores_are_refused_with_both_figures() -> None:
    with pytest.raises(InvalidArgumentError, match="--threads-per-worker is 5, and this process may use 4 cores"):
        find_devices(cpu_workers=0, threads_per_worker=5)


@given(
    st.sets(st.integers(0, 127), min_size=1).map(sorted).map(tuple),
    st.none() | st.integers(1, 128),
    st.integers(0, 16),
    st.integers(1, 16),
)
def test_sets_are_disjoint_or_equal_and_never_more_than_the_quota_pays_for(
    cores: tuple[int, ...], quota: int | None, workers: int, threads: int
) -> None:
    assume(threads <= len(cores))
    devices = divide_cores(cores, quota, workers=workers, threads=threads)
    assert [device.id for device in devices] == list(range(len(devices)))
    assert all(len(device.cores) == threads and set(device.cores) <= set(cores) for device in devices)
    for one in devices:
        assert all(one.cores == other.cores or not {*one.cores} & {*other.cores} for other in devices)
    if workers:
        assert len(devices) == workers
    else:
        assert len(devices) == 1 or len(devices) * threads <= (quota or len(cores))
        assert len({device.cores for device in devices}) == len(devices)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2),
        ("150000 100000\n", 1),
        ("10000 100000\n", 1),
        ("", None),
        ("x", None),
    ],
)
def test_a_containers_quota_is_read_in_whole_cores(text: str, cores: int | None, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text, encoding="ascii")
    assert usable_cores(path) == cores
    assert usable_cores(tmp_path / "none") is None


@pytest.mark.usefixtures("four_cores")
def test_gpus_are_the_devices_unless_cpu_workers_are_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(gpus=(FakeGpu(uuid="GPU-a"), FakeGpu(uuid=b"GPU-b"))).install(monkeypatch)
    gpus = tuple(
        Device(kind="gpu", id=number, gpu_uuid=uuid, memory_bytes=80) for number, uuid in enumerate(("GPU-a", "GPU-b"))
    )
    assert find_devices(cpu_workers=0, threads_per_worker=1) == gpus
    mixed = find_devices(cpu_workers=1, threads_per_worker=2)
    assert mixed == (*gpus, Device(kind="cpu", id=0, cores=(2, 4)))
    assert [device.name for device in mixed] == ["gpu0", "gpu1", "cpu0"]
    stated = find_devices(cpu_workers=0, threads_per_worker=2, stated=("cpu", "gpu1:40%"))
    assert [device.name for device in stated] == ["cpu0", "cpu1", "gpu1.mps0"]
