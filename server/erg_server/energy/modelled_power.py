"""Power that nothing measures: stated idle and busy watts, and measured utilisation between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from erg_server.energy.account import Source
from erg_server.energy.power_source import Activity
from erg_server.energy.stated_watts import StatedWatts

_UW: Final = 1_000_000


class _ModelledPower:
    """Idle watts for as long as it is on, and the watts above for each nanosecond of `units` that is busy."""

    source: Source = "modelled"
    counts_all = False
    may_block = False

    def __init__(self, domain: str, watts: StatedWatts, units: int) -> None:
        assert watts.busy is not None
        self.domain = domain
        self.idle_watts: float | None = watts.idle
        self._idle_uw = round(watts.idle * _UW)
        self._active_uw = round(watts.busy * _UW) - self._idle_uw
        self._units = units
        self._first_ns: int | None = None
        self._first_busy_ns = 0

    def _energy_uj(self, now_ns: int, busy_ns: int) -> int:
        if self._first_ns is None:
            self._first_ns, self._first_busy_ns = now_ns, busy_ns
        # From the start each time, so that no rounding adds up.
        elapsed, busy = now_ns - self._first_ns, busy_ns - self._first_busy_ns
        return (self._idle_uw * elapsed * self._units + self._active_uw * busy) // (self._units * 1_000_000_000)

    def close(self) -> None:
        """Nothing is open."""


class ModelledCpuPower(_ModelledPower):
    """The cores that the server may use: utilisation is CPU time of the front and the workers over their time."""

    def __init__(self, watts: StatedWatts, *, cores: int, threads: Mapping[str, int]) -> None:
        super().__init__("cpu", watts, cores)
        self._threads = threads

    def read(self, activity: Activity) -> int:
        """Microjoules so far."""
        return self._energy_uj(activity.now_ns, activity.cpu_ns)

    def stated_active_watts(self, device: str) -> float | None:
        """What a worker's threads take when all are busy."""
        return self._active_uw / _UW * self._threads.get(device, 0) / self._units


class ModelledGpuPower(_ModelledPower):
    """A GPU: utilisation is the time that its devices hold batches, each by its share of the GPU (in thousandths)."""

    def __init__(self, domain: str, watts: StatedWatts, *, shares: Mapping[str, int]) -> None:
        super().__init__(domain, watts, sum(shares.values()))
        self._shares = shares

    def read(self, activity: Activity) -> int:
        """Microjoules so far."""
        held_ns = sum(activity.held_ns.get(name, 0) * share for name, share in self._shares.items())
        return self._energy_uj(activity.now_ns, held_ns)

    def stated_active_watts(self, device: str) -> float | None:
        """What the device's share of a busy GPU takes."""
        return self._active_uw / _UW * self._shares.get(device, 0) / self._units
