"""As much of NVML's Python module as is asked, with its own names, numbers and errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType

import pytest

NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_GPU_IS_LOST = 15
NVML_DEVICE_MIG_ENABLE = 1


class FakeNvmlError(Exception):
    """NVML's error: `value` is its number."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass(frozen=True, slots=True)
class FakeProcess:
    pid: int
    usedGpuMemory: int | None  # noqa: N815 (NVML's name)


@dataclass(frozen=True, slots=True)
class FakeMemory:
    total: int
    used: int = 0


@dataclass(slots=True, kw_only=True)
class FakePower:
    """What a GPU tells of its power: a counter in millijoules, None for a card without one, and milliwatts."""

    counter_mj: int | None = 0
    power_mw: int = 0
    limit_mw: int = 700_000
    lost: bool = False


@dataclass(frozen=True, slots=True)
class FakeRates:
    gpu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeGpu:
    """A GPU or a MIG instance; `instances` are a GPU's by number, None for one that does not know MIG."""

    uuid: str | bytes
    memory: FakeMemory = FakeMemory(total=80)
    mig: bool | None = None
    slots: int = 0
    instances: dict[int, FakeGpu] = field(default_factory=dict)
    processes: tuple[FakeProcess, ...] = ()
    power: FakePower = field(default_factory=FakePower)


@dataclass(slots=True, kw_only=True)
class FakeNvml:
    """The module; the call named `broken` fails."""

    gpus: tuple[FakeGpu, ...] = ()
    broken: str = ""
    closed: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
        module = ModuleType("pynvml")
        calls: dict[str, Callable[..., object]] = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": self._shutdown,
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: _there(self.gpus[index]),
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetUUID": lambda handle: handle.uuid,
            "nvmlDeviceGetMemoryInfo": lambda handle: handle.memory,
            "nvmlDeviceGetMigMode": self._mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda handle: handle.slots,
            "nvmlDeviceGetMigDeviceHandleByIndex": self._instance,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: handle.processes,
            "nvmlDeviceGetTotalEnergyConsumption": self._counter_mj,
            "nvmlDeviceGetPowerUsage": lambda handle: _there(handle).power.power_mw,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: _there(handle).power.limit_mw,
            "nvmlDeviceGetUtilizationRates": self._rates,
        }
        for name, call in calls.items():
            setattr(module, name, self._fail if name == self.broken else call)
        for name, value in {
            "NVMLError": FakeNvmlError,
            "NVML_ERROR_NOT_SUPPORTED": NVML_ERROR_NOT_SUPPORTED,
            "NVML_ERROR_NOT_FOUND": NVML_ERROR_NOT_FOUND,
            "NVML_DEVICE_MIG_ENABLE": NVML_DEVICE_MIG_ENABLE,
        }.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return self

    def _counter_mj(self, handle: FakeGpu) -> int:
        counter_mj = _there(handle).power.counter_mj
        if counter_mj is None:
            raise FakeNvmlError(NVML_ERROR_NOT_SUPPORTED)
        return counter_mj

    def _rates(self, handle: FakeGpu) -> FakeRates:
        if handle.mig:
            raise FakeNvmlError(NVML_ERROR_NOT_SUPPORTED)
        return FakeRates(40)

    def _fail(self, *_: object) -> object:
        raise FakeNvmlError(NVML_ERROR_GPU_IS_LOST)

    def _shutdown(self) -> None:
        self.closed += 1

    def _by_uuid(self, uuid: str) -> FakeGpu:
        for gpu in self.gpus:
            for each in (gpu, *gpu.instances.values()):
                if each.uuid == uuid:
                    return each
        raise FakeNvmlError(NVML_ERROR_NOT_FOUND)

    def _mig_mode(self, handle: FakeGpu) -> list[int]:
        if handle.mig is None:
            raise FakeNvmlError(NVML_ERROR_NOT_SUPPORTED)
        return [int(handle.mig), int(handle.mig)]

    def _instance(self, handle: FakeGpu, number: int) -> FakeGpu:
        if number not in handle.instances:
            raise FakeNvmlError(NVML_ERROR_NOT_FOUND)
        return handle.instances[number]


def _there(gpu: FakeGpu) -> FakeGpu:
    if gpu.power.lost:
        raise FakeNvmlError(NVML_ERROR_GPU_IS_LOST)
    return gpu
