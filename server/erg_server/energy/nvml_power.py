"""A GPU's energy by NVML: its counter, or its power over time where a card has no counter."""

from __future__ import annotations

import logging
from typing import Any

from erg_server.energy.account import Source
from erg_server.energy.counter import EnergyCounter
from erg_server.energy.power_source import Activity

log = logging.getLogger(__name__)


class NvmlPower:
    """One GPU. Its MIG instances and MPS shares have no counter of their own; NVML stays initialised by its owner.

    A GPU that is lost does not answer, and its books stand still. `index` is the GPU's in NVML.
    """

    source: Source = "measured"
    counts_all = False
    may_block = True

    def __init__(self, nvml: Any, index: int, *, idle_watts: float | None = None) -> None:
        self.domain = f"gpu{index}"
        self.idle_watts = idle_watts
        self._nvml = nvml
        self._index = index
        self._handle: Any = None
        self._counter = EnergyCounter(self.domain)
        self._integrates = False
        self._integral = _PowerIntegral()
        self._told = False

    def read(self, activity: Activity) -> int | None:
        """Microjoules so far, None while the GPU does not answer."""
        try:
            energy_uj = self._read(activity.now_ns)
        except self._nvml.NVMLError as error:
            self._handle = None  # One that was lost and came back has another.
            self._integral.interrupt()
            if not self._told:
                self._told = True
                log.warning("NVML does not tell the energy of %s: %s; it is asked again", self.domain, error)
            return None
        self._told = False
        return energy_uj

    def _read(self, now_ns: int) -> int:
        if self._handle is None:
            self._handle = self._nvml.nvmlDeviceGetHandleByIndex(self._index)
        if not self._integrates:
            try:
                raw_mj = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_NOT_SUPPORTED:
                    raise
                self._integrates = True
                log.info("%s has no energy counter; its power is integrated over time", self.domain)
            else:
                return self._counter.observe(now_ns, raw_mj * 1000)
        return self._integral.observe(now_ns, int(self._nvml.nvmlDeviceGetPowerUsage(self._handle)))

    def stated_active_watts(self, device: str) -> float | None:
        """Nothing: it is measured."""
        return None

    def close(self) -> None:
        """NVML is its owner's to shut down."""


class _PowerIntegral:
    """Microjoules from readings of power in milliwatts, by trapezoids. What a gap took is not known and not counted."""

    def __init__(self) -> None:
        self._total_nj = 0
        self._last: tuple[int, int] | None = None

    def observe(self, now_ns: int, power_mw: int) -> int:
        """Take in a reading and return the total so far."""
        if self._last is not None:
            last_ns, last_mw = self._last
            # Milliwatts times nanoseconds are picojoules.
            self._total_nj += (last_mw + power_mw) * (now_ns - last_ns) // 2000
        self._last = now_ns, power_mw
        return self._total_nj // 1000

    def interrupt(self) -> None:
        """A reading is missing."""
        self._last = None
