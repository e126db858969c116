"""From the file and this machine's devices to what they cost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from erg_server.devices.device import Device
from erg_server.errors import InvalidArgumentError
from erg_server.money.tariff_file import read_tariff

from tests.server.devices.fake_nvml import FakeGpu, FakeNvml

GPU = Device(kind="gpu", id=0, gpu_uuid="GPU-a")


def test_a_gpu_is_asked_for_its_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(gpus=(FakeGpu(uuid="GPU-a", product="NVIDIA H100"),)).install(monkeypatch)
    path = tmp_path / "prices.toml"
    path.write_text('[device_hour_usd]\ngpu = 1\n"NVIDIA H100" = 3.6\n')
    tariff = read_tariff(path, [GPU])
    assert Fraction(tariff.device_parts("gpu0", 10**9), tariff.parts_per_usd) == Fraction(1, 1000)
    path.write_text("[device_hour_usd]\ncpu = 1\n")
    with pytest.raises(InvalidArgumentError, match="gpu0: give one for 'NVIDIA H100', or gpu for all"):
        read_tariff(path, [GPU])
