"""Which sources a server gets, and what it is told where it cannot have what it asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from erg_server.devices.device import Device
from erg_server.energy.sources import PowerSources, server_cores
from erg_server.energy.stated_watts import parse_watts
from erg_server.errors import InvalidArgumentError

from tests.server.devices.fake_nvml import FakeGpu, FakeNvml
from tests.server.energy.powercap import write_zone

CPU = [Device(kind="cpu", id=0, cores=(0,)), Device(kind="cpu", id=1, cores=(1,))]
GPU = [Device(kind="gpu", id=0, gpu_uuid="GPU-0")]
MIG = [Device(kind="gpu", id=0, gpu_uuid=f"MIG-{n}", partition=f"mig{n}", memory_bytes=10) for n in range(2)]


@pytest.fixture
def rapl(tmp_path: Path) -> Path:
    write_zone(tmp_path / "there", "intel-rapl:0", "package-0")
    return tmp_path / "there"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    return FakeNvml(gpus=(FakeGpu(uuid="GPU-0"),)).install(monkeypatch)


def chosen(
    kind: str, devices: Sequence[Device], watts: Sequence[str] = (), rapl: Path = Path("/nonexistent")
) -> dict[str, tuple[str, float | None]]:
    power = PowerSources(kind, devices, parse_watts(watts), rapl=rapl, cores=2)
    found: dict[str, tuple[str, float | None]] = {
        source.domain: (source.source, source.idle_watts) for source in power.sources
    }
    power.close()
    return found


def test_auto_takes_counters_before_models(rapl: Path, nvml: FakeNvml) -> None:
    watts = ("cpu=20:95", "gpu=60:300")
    assert chosen("auto", GPU + CPU, watts, rapl) == {"gpu0": ("measured", 60), "cpu": ("measured", 20)}
    assert nvml.closed == 1


def test_auto_models_what_has_no_counter_and_no_more_than_is_stated() -> None:
    assert chosen("auto", GPU + CPU, ("cpu=20:95",)) == {"cpu": ("modelled", 20)}
    assert chosen("auto", GPU + CPU, ("gpu0=60:300",)) == {"gpu0": ("modelled", 60)}
    assert chosen("auto", CPU, ("cpu=20",)) == {}
    assert chosen("auto", CPU) == {}


def test_modelled_reads_no_counter(rapl: Path, nvml: FakeNvml) -> None:
    watts = ("cpu=20:95", "gpu=60:300")
    assert chosen("modelled", GPU + CPU, watts, rapl) == {"gpu0": ("modelled", 60), "cpu": ("modelled", 20)}


def test_each_counter_can_be_had_alone(rapl: Path, nvml: FakeNvml) -> None:
    assert chosen("rapl", GPU + CPU, (), rapl) == {"cpu": ("measured", None)}
    assert chosen("nvml", GPU + CPU, (), rapl) == {"gpu0": ("measured", None)}
    assert chosen("none", GPU + CPU, ("cpu=20:95",), rapl) == {}


def test_instances_of_one_gpu_share_its_counter(nvml: FakeNvml) -> None:
    assert chosen("auto", MIG) == {"gpu0": ("measured", None)}


@pytest.mark.parametrize(
    ("kind", "watts", "message"),
    [
        ("modelled", (), "--power-source modelled needs the watts of a domain: --power-watts cpu=IDLE:BUSY"),
        ("modelled", ("cpu=20",), "needs the watts of a domain"),
        ("rapl", (), "--power-source rapl: there is no RAPL under /nonexistent"),
        ("nvml", (), "--power-source nvml: this server uses no GPU"),
        ("auto", ("gpu0=60:300",), "--power-watts gpu0: this server uses no such device; it has cpu"),
        ("auto", ("gpu=60:300",), "--power-watts gpu: this server uses no such device"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_it_needs(kind: str, watts: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        chosen(kind, CPU, watts)


def test_a_failure_leaves_nvml_shut_down(nvml: FakeNvml) -> None:
    with pytest.raises(InvalidArgumentError):
        PowerSources("rapl", GPU, {}, rapl=Path("/nonexistent"))
    assert nvml.closed == 1


def test_the_log_says_why_the_cpu_is_not_measured(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    chosen("auto", CPU)
    assert "the CPU's energy is not measured: there is no RAPL" in caplog.text
    assert "sources of power: none" in caplog.text


def test_the_server_has_at_least_a_core() -> None:
    assert server_cores() >= 1
