"""What is made of NVML's answers, up to the edge of the library itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from erg_server.devices.device import Device
from erg_server.devices.nvml import MemoryUse, find_gpus, gpu_memory, product_names

from tests.server.devices.fake_nvml import FakeGpu, FakeMemory, FakeNvml, FakeProcess

SLICES = FakeGpu(
    uuid="GPU-b",
    mig=True,
    slots=4,
    instances={
        0: FakeGpu(uuid=b"MIG-0", memory=FakeMemory(total=20)),
        2: FakeGpu(uuid="MIG-2", memory=FakeMemory(total=40, used=30), processes=(FakeProcess(7, 9),)),
    },
)


def test_without_nvmls_package_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert find_gpus() == ()
    assert gpu_memory(Device(kind="gpu", id=0), 1) == MemoryUse()


@pytest.mark.parametrize(
    "broken",
    [
        "nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID", "nvmlDeviceGetMigMode",
        "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMigDeviceHandleByIndex",
    ],
)  # fmt: skip
def test_an_nvml_that_fails_at_any_call_means_no_gpu_and_no_crash(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(gpus=(SLICES, FakeGpu(uuid="GPU-a")), broken=broken).install(monkeypatch)
    assert find_gpus() == ()
    assert nvml.closed == (0 if broken == "nvmlInit" else 1)


def test_a_gpu_in_mig_mode_is_its_instances_each_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(gpus=(FakeGpu(uuid=b"GPU-a"), SLICES, FakeGpu(uuid="GPU-c", mig=False))).install(monkeypatch)
    devices = find_gpus()
    assert devices == (
        Device(kind="gpu", id=0, gpu_uuid="GPU-a", memory_bytes=80),
        Device(kind="gpu", id=1, gpu_uuid="MIG-0", partition="mig0", memory_bytes=20),
        Device(kind="gpu", id=1, gpu_uuid="MIG-2", partition="mig2", memory_bytes=40),
        Device(kind="gpu", id=2, gpu_uuid="GPU-c", memory_bytes=80),
    )
    assert [device.name for device in devices] == ["gpu0", "gpu1.mig0", "gpu1.mig2", "gpu2"]
    assert [device.memory_pool for device in devices] == ["gpu0", "gpu1.mig0", "gpu1.mig2", "gpu2"]
    assert [device.host for device in devices] == ["gpu0", "gpu1", "gpu1", "gpu2"]


def test_a_worker_sees_its_own_gpu_alone_and_no_more_than_its_share() -> None:
    instance = Device(kind="gpu", id=1, gpu_uuid="MIG-0", partition="mig0")
    assert (instance.environment, instance.cuda_index) == ({"CUDA_VISIBLE_DEVICES": "MIG-0"}, 0)
    share = Device(kind="gpu", id=1, gpu_uuid="GPU-b", partition="mps0", mps_percent=30)
    assert share.environment == {"CUDA_VISIBLE_DEVICES": "GPU-b", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "30"}
    assert share.memory_pool == "gpu1"
    assert (Device(kind="gpu", id=1).environment, Device(kind="gpu", id=1).cuda_index) == ({}, 1)
    assert Device(kind="cpu", id=1).environment == {}


def test_a_models_memory_is_what_its_process_took(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(gpus=(SLICES,)).install(monkeypatch)
    assert gpu_memory(Device(kind="gpu", id=1, gpu_uuid="GPU-b"), 7) == MemoryUse(None, 0)
    assert gpu_memory(Device(kind="gpu", id=1, gpu_uuid="MIG-2"), 7) == MemoryUse(9, 30)
    assert MemoryUse(12, 50).grown_since(MemoryUse(5, 10)) == 7
    assert MemoryUse(12, 50).grown_since(MemoryUse(None, 10)) == 12, "it had no context before"
    assert MemoryUse(None, 50).grown_since(MemoryUse(None, 10)) == 40, "process ids are a container's own"
    assert MemoryUse(None, 50).grown_since(MemoryUse()) == 0, "what others use is not counted where NVML failed once"
    assert MemoryUse().grown_since(MemoryUse(None, 10)) == 0


def test_products_are_named_for_gpus_alone_and_not_where_nvml_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = (FakeGpu(uuid="GPU-a", product=b"NVIDIA H100"), FakeGpu(uuid="GPU-c"))
    devices = [Device(kind="gpu", id=n, gpu_uuid=uuid) for n, uuid in enumerate(("GPU-a", "GPU-b", "GPU-c"))]
    FakeNvml(gpus=gpus).install(monkeypatch)
    assert product_names([*devices, Device(kind="cpu", id=0)]) == {"gpu0": "NVIDIA H100", "gpu2": "NVIDIA Fake"}
    nvml = FakeNvml(gpus=gpus, broken="nvmlDeviceGetName").install(monkeypatch)
    assert product_names(devices) == {}
    assert nvml.closed == 1
    assert product_names([Device(kind="cpu", id=0)]) == {}
    assert nvml.closed == 1, "without a GPU nobody is asked"
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert product_names(devices) == {}


def test_nvml_that_loses_the_gpu_tells_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(gpus=(SLICES,), broken="nvmlDeviceGetHandleByUUID").install(monkeypatch)
    assert gpu_memory(Device(kind="gpu", id=1, gpu_uuid="GPU-b"), 7) == MemoryUse()


@pytest.mark.gpu
def test_a_real_gpu_is_found_with_its_uuid_and_memory() -> None:
    if not Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has no NVIDIA driver")
    pytest.importorskip("pynvml", reason="NVML's Python package is not installed")
    gpus = find_gpus()
    assert gpus
    assert all(gpu.gpu_uuid.startswith(("GPU-", "MIG-")) and gpu.memory_bytes > 0 for gpu in gpus)
    assert (gpu_memory(gpus[0], 1).device_bytes or 0) > 0
