"""NVML's energy, over a module of the test's own; it was never run on a GPU."""

from __future__ import annotations

import sys

import pytest
from erg_server.energy.gpu_gauges import GpuGauges
from erg_server.energy.nvml_power import NvmlPower
from erg_server.energy.power_source import Activity
from erg_server.telemetry.gpu_families import GpuSample

from tests.server.devices.fake_nvml import FakeGpu, FakeNvml, FakePower
from tests.server.energy.builders import S


def at(now_ns: int) -> Activity:
    return Activity(now_ns=now_ns, cpu_ns=0, held_ns={})


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    made = FakeGpu(uuid="GPU-0", power=FakePower(counter_mj=5000, power_mw=70_000))
    FakeNvml(gpus=(FakeGpu(uuid="GPU-other"), made)).install(monkeypatch)
    return made


def power_of_the_second() -> NvmlPower:
    return NvmlPower(sys.modules["pynvml"], 1)


def test_the_energy_counter_is_in_millijoules(gpu: FakeGpu) -> None:
    power = power_of_the_second()
    assert power.read(at(0)) == 0
    gpu.power.counter_mj = 5123
    assert power.read(at(S)) == 123_000
    assert (power.domain, power.source) == ("gpu1", "measured")


def test_a_driver_that_was_loaded_again_counts_anew(gpu: FakeGpu) -> None:
    power = power_of_the_second()
    power.read(at(0))
    gpu.power.counter_mj = 10
    assert power.read(at(S)) == 0
    gpu.power.counter_mj = 30
    assert power.read(at(2 * S)) == 20_000


def test_without_a_counter_power_is_integrated_over_time(gpu: FakeGpu) -> None:
    gpu.power.counter_mj = None
    power = power_of_the_second()
    assert power.read(at(0)) == 0
    gpu.power.power_mw = 170_000
    assert power.read(at(S)) == 120_000_000
    assert power.read(at(S + S // 10)) == 137_000_000


def test_a_gpu_that_is_lost_is_missing_and_one_that_comes_back_goes_on(
    gpu: FakeGpu, caplog: pytest.LogCaptureFixture
) -> None:
    power = power_of_the_second()
    power.read(at(0))
    gpu.power.lost = True
    gpu.power.counter_mj = 5400
    assert power.read(at(S)) is None
    assert power.read(at(2 * S)) is None
    assert caplog.text.count("does not tell the energy of gpu1") == 1
    gpu.power.lost = False
    assert power.read(at(3 * S)) == 400_000


def test_a_gpu_that_comes_back_is_asked_for_by_a_new_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml(gpus=(FakeGpu(uuid="GPU-0", power=FakePower(counter_mj=100)),)).install(monkeypatch)
    power = NvmlPower(sys.modules["pynvml"], 0)
    power.read(at(0))
    nvml.gpus[0].power.lost = True
    assert power.read(at(S)) is None
    nvml.gpus = (FakeGpu(uuid="GPU-0", power=FakePower(counter_mj=300)),)
    assert power.read(at(2 * S)) == 200_000


def test_what_a_gap_took_is_not_made_up_from_power(gpu: FakeGpu) -> None:
    gpu.power.counter_mj = None
    power = power_of_the_second()
    power.read(at(0))
    assert power.read(at(S)) == 70_000_000
    gpu.power.lost = True
    assert power.read(at(2 * S)) is None
    gpu.power.lost = False
    assert power.read(at(100 * S)) == 70_000_000
    assert power.read(at(101 * S)) == 140_000_000


def test_gauges_count_energy_from_the_servers_start(gpu: FakeGpu) -> None:
    gauges = GpuGauges(sys.modules["pynvml"], {1: "gpu1"})
    gpu.power.counter_mj = 7500
    assert gauges.samples() == [
        GpuSample(
            uuid="GPU-0",
            power_watts=70.0,
            power_limit_watts=700.0,
            energy_joules=2.5,
            utilization=0.4,
            memory_total_bytes=80,
            memory_used_bytes=0,
        )
    ]


def test_a_gauge_that_a_card_has_not_is_left_out_and_a_lost_card_altogether(gpu: FakeGpu) -> None:
    gpu.power.counter_mj = None
    gauges = GpuGauges(sys.modules["pynvml"], {1: "gpu1"})
    (sample,) = gauges.samples()
    assert sample.energy_joules is None
    assert sample.power_watts == 70.0
    gpu.power.lost = True
    assert gauges.samples() == []
    assert GpuGauges(None, {1: "gpu1"}).samples() == []


@pytest.mark.gpu
def test_a_real_gpus_counter_grows() -> None:
    nvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        pytest.skip(f"no NVIDIA GPU: {error}")
    power = NvmlPower(nvml, 0)
    first = power.read(at(0))
    found = first
    for step in range(1, 2_000_000):
        found = power.read(at(step))
        if found != first:
            break
    assert found is not None
    assert first is not None
    assert found > first
    nvml.nvmlShutdown()
