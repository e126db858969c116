"""How a worker's memory is split over its models: nothing counts twice, and nothing is given to whom nobody knows."""

from __future__ import annotations

import os

import pytest
from erg_server.devices.device import Device
from erg_server.devices.process_memory import ProcessMemory
from erg_server.workers.memory_reading import KnownMemory, MemoryReading, read_memory, split_memory
from hypothesis import given
from hypothesis import strategies as st

from tests.server.devices.fake_nvml import FakeGpu, FakeMemory, FakeNvml, FakeProcess

CPU = Device(kind="cpu", id=0)
GPU = Device(kind="gpu", id=0, gpu_uuid="GPU-a")
A, B = ("a", "1"), ("b", "2")


def known(device: Device = CPU, base: int | None = 100, **models: int) -> KnownMemory:
    named = {"a": A, "b": B}
    return KnownMemory(
        worker=device.name,
        device=device,
        pid=7,
        slab_bytes=5,
        base_bytes=base,
        models={named[name]: nbytes for name, nbytes in models.items()},
    )


def process(own: int, *, pss: int | None = None) -> ProcessMemory:
    return ProcessMemory(rss_bytes=own + 50, peak_rss_bytes=own + 80, pss_bytes=pss, own_bytes=own)


def test_the_rest_is_the_only_models() -> None:
    shares = split_memory(known(a=30), MemoryReading(process(170, pss=175)))
    assert shares.kinds == {"slab": 5, "models": 30, "rss": 220, "pss": 175, "base": 100, "rest": 40}
    assert shares.models == {A: 70}
    assert shares.kernel_peaks == {"rss": 250}


def test_among_several_models_the_rest_is_nobodys() -> None:
    shares = split_memory(known(a=30, b=20), MemoryReading(process(170)))
    assert (shares.kinds["rest"], shares.models) == (20, {A: 30, B: 20})
    assert "pss" not in shares.kinds, "the host does not tell it"


def test_a_gpu_workers_models_are_in_the_gpus_memory() -> None:
    shares = split_memory(known(GPU, a=30), MemoryReading(process(170, pss=160), 145))
    assert shares.kinds == {"slab": 5, "models": 30, "rss": 220, "pss": 160, "gpu": 145, "base": 100, "rest": 15}
    assert shares.models == {A: 45}


def test_what_nobody_tells_is_left_out() -> None:
    assert split_memory(known(GPU, a=30), MemoryReading(process(170))).models == {A: 30}
    assert split_memory(known(a=30), MemoryReading(None)).kinds == {"slab": 5, "models": 30}
    assert split_memory(known(base=None), MemoryReading(process(9))).kinds == {"slab": 5, "models": 0, "rss": 59}


def test_a_process_that_gave_memory_back_owes_none() -> None:
    shares = split_memory(known(a=30), MemoryReading(process(90)))
    assert (shares.kinds["rest"], shares.models) == (0, {A: 30})


sizes = st.integers(0, 1 << 40)


@given(sizes, st.dictionaries(st.sampled_from(["a", "b"]), sizes), sizes)
def test_base_loads_and_rest_are_all_that_the_device_holds(base: int, models: dict[str, int], more: int) -> None:
    held = base + sum(models.values()) + more
    shares = split_memory(known(CPU, base, **models), MemoryReading(process(held)))
    assert shares.kinds["base"] + shares.kinds["models"] + shares.kinds["rest"] == held
    apart = 0 if len(models) == 1 else shares.kinds["rest"]
    assert base + sum(shares.models.values()) + apart == held


def test_a_worker_is_looked_at_on_its_host_and_on_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(uuid="GPU-a", memory=FakeMemory(total=80), processes=(FakeProcess(os.getpid(), 9),))
    FakeNvml(gpus=(gpu,)).install(monkeypatch)
    told = read_memory(GPU, os.getpid())
    assert told.gpu_bytes == 9
    assert told.process is not None
    assert (told.device_bytes(GPU), told.device_bytes(CPU)) == (9, told.process.own_bytes)
    assert read_memory(CPU, os.getpid()).gpu_bytes is None
