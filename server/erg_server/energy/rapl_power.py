"""CPU packages and their memory by RAPL, the running average power limit of Intel's and AMD's CPUs (Linux powercap)."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from erg_server.energy.account import Source
from erg_server.energy.counter import EnergyCounter
from erg_server.energy.power_source import Activity

log = logging.getLogger(__name__)

POWERCAP = Path("/sys/class/powercap")
_ZONE = re.compile(r"intel-rapl:[0-9]+(:[0-9]+)?")


class RaplZone:
    """One counter: a package, or the memory beside it. Its file stays open, since opening is most of a reading."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        range_uj = int((folder / "max_energy_range_uj").read_text(encoding="ascii"))
        self._counter = EnergyCounter(f"{name} ({folder.name})", range_uj)
        self._fd = os.open(folder / "energy_uj", os.O_RDONLY | os.O_CLOEXEC)
        self._told = False

    @property
    def total_uj(self) -> int:
        """Microjoules since the first reading."""
        return self._counter.total_uj

    def read(self, now_ns: int) -> bool:
        """Read the counter; False where it does not answer."""
        try:
            self._counter.observe(now_ns, int(os.pread(self._fd, 32, 0)))
        except (OSError, ValueError) as error:
            if not self._told:
                self._told = True
                log.warning("RAPL does not tell the energy of %s any more: %s", self.name, error)
            return False
        self._told = False
        return True

    def close(self) -> None:
        """Close its file."""
        os.close(self._fd)


class RaplPower:
    """Packages and memory as one domain, `cpu`. What one zone does not tell now, it tells with its next reading."""

    domain = "cpu"
    source: Source = "measured"
    counts_all = True
    may_block = False

    def __init__(self, zones: tuple[RaplZone, ...], *, idle_watts: float | None = None) -> None:
        self.idle_watts = idle_watts
        self.zones = zones

    def read(self, activity: Activity) -> int | None:
        """Microjoules so far, None while no zone answers."""
        answered = [zone.read(activity.now_ns) for zone in self.zones]
        return sum(zone.total_uj for zone in self.zones) if any(answered) else None

    def stated_active_watts(self, device: str) -> float | None:
        """Nothing: it is measured."""
        return None

    def close(self) -> None:
        """Close every zone's file."""
        for zone in self.zones:
            zone.close()


def find_rapl(root: Path = POWERCAP) -> tuple[tuple[RaplZone, ...], str]:
    """The zones that can be read, and where there is none why."""
    zones: list[RaplZone] = []
    refused: OSError | ValueError | None = None
    for folder, name in _zones(root):
        try:
            zones.append(RaplZone(folder, name))
        except (OSError, ValueError) as error:
            refused = error
    if isinstance(refused, PermissionError):
        reason = (
            f"{refused.filename} can be read by root alone (since CVE-2020-8694): run `chmod a+r` on it or give the "
            "process CAP_DAC_READ_SEARCH, and mount /sys/devices/virtual/powercap into a container"
        )
    elif refused is not None:
        reason = f"RAPL's counters under {root} do not answer: {refused}"
    else:
        reason = f"there is no RAPL under {root}: a virtual machine or a container hides it, or the CPU has none"
    for zone in zones if refused is not None else ():
        zone.close()  # Packages without their memory, or one of two, would pose as the whole.
    return ((), reason) if refused is not None or not zones else (tuple(zones), "")


def _zones(root: Path) -> Iterator[tuple[Path, str]]:
    """Packages and memory. Cores and graphics are in a package, `psys` holds packages, and mmio zones repeat them."""
    try:
        folders = sorted(folder for folder in root.iterdir() if _ZONE.fullmatch(folder.name))
    except OSError:
        return
    for folder in folders:
        try:
            name = (folder / "name").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if name.startswith("package") or name == "dram":
            yield folder, f"{folder.name.split(':')[1]}/{name}" if name == "dram" else name
