"""The state of each GPU as NVML tells it at a scrape, for the gauges that Triton's dashboards read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from erg_server.energy.counter import EnergyCounter
from erg_server.telemetry.gpu_families import GpuSample

log = logging.getLogger(__name__)


class GpuGauges:
    """GPUs by their index in NVML, which stays initialised by its owner; none without NVML."""

    def __init__(self, nvml: Any, gpus: Mapping[int, str]) -> None:
        self._nvml = nvml
        self._names = gpus if nvml is not None else {}
        self._counters = {index: EnergyCounter(f"{name}'s gauge") for index, name in self._names.items()}
        for index in self._names:
            self._energy_joules(index)  # Counts from now.

    def samples(self) -> list[GpuSample]:
        """Every GPU that answers. A figure that a card does not have is None."""
        return [sample for index in self._names if (sample := self._sample(index)) is not None]

    def _sample(self, index: int) -> GpuSample | None:
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError as error:
            log.debug("%s does not answer: %s", self._names[index], error)
            return None
        memory = self._ask(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        power_mw = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit_mw = self._ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        rates = self._ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        return GpuSample(
            uuid=uuid.decode() if isinstance(uuid, bytes) else str(uuid),
            power_watts=None if power_mw is None else power_mw / 1e3,
            power_limit_watts=None if limit_mw is None else limit_mw / 1e3,
            energy_joules=self._energy_joules(index),
            utilization=None if rates is None else rates.gpu / 100,
            memory_total_bytes=None if memory is None else int(memory.total),
            memory_used_bytes=None if memory is None else int(memory.used),
        )

    def _energy_joules(self, index: int) -> float | None:
        nvml = self._nvml
        raw_mj = self._ask(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(index)))
        return None if raw_mj is None else self._counters[index].observe(time.monotonic_ns(), raw_mj * 1000) / 1e6

    def _ask(self, call: Callable[[], Any]) -> Any:
        """What NVML answers, None for what a card has not: MIG has no utilisation, old cards no energy."""
        try:
            return call()
        except self._nvml.NVMLError:
            return None
