"""One domain under measurement: its source's readings made intervals, its idle power, and its ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from erg_server.energy.account import Source
from erg_server.energy.batch_log import BatchRecord
from erg_server.energy.domain_ledger import DomainLedger
from erg_server.energy.idle_watts import IdleWatts
from erg_server.energy.interval import DomainDevice, Interval
from erg_server.energy.power_source import PowerSource

OVERDUE_NS: Final = 60_000_000_000
"""How long energy stays pending for a batch that is still out."""
QUIET_SHARE: Final = 0.02
"""Share of one core's time below which nothing is said to have run."""
_WATTS_NS: Final = 1_000_000_000


class Cpu:
    """CPU time since the last sample, in nanoseconds: of each worker, of the front and of everything else."""

    __slots__ = ("front_ns", "other_ns", "workers_ns")

    def __init__(self, workers_ns: dict[str, int], front_ns: int, other_ns: int) -> None:
        self.workers_ns = workers_ns
        self.front_ns = front_ns
        self.other_ns = other_ns

    def add(self, other: Cpu) -> None:
        """Count in what came later."""
        for name, cpu_ns in other.workers_ns.items():
            self.workers_ns[name] = self.workers_ns.get(name, 0) + cpu_ns
        self.front_ns += other.front_ns
        self.other_ns += other.other_ns

    @property
    def sum_ns(self) -> int:
        """All of it."""
        return sum(self.workers_ns.values()) + self.front_ns + self.other_ns


class MeteredDomain:
    """Decides nothing but what a reading means; readings and times are passed in.

    The CPU's energy is split by CPU time, a GPU's by the time that batches ran. `source` is None where nothing tells of
    energy: then only device time and rows are booked.
    """

    def __init__(self, domain: str, source: PowerSource | None, devices: Sequence[DomainDevice]) -> None:
        self.domain = domain
        self.source = source
        self.devices = tuple(device.name for device in devices)
        self._by_cpu = domain == "cpu"
        self.ledger = DomainLedger(domain, devices, by_overlap=not self._by_cpu)
        self.idle = IdleWatts(None if source is None else source.idle_watts)
        self.counter_uj = 0
        self.missing = 0
        self._first_uj: int | None = None
        self._last_ns = 0
        self._cpu = Cpu({}, 0, 0)
        self._quiet = True
        self._recent: deque[tuple[int, int]] = deque()

    @property
    def label(self) -> Source:
        """Where its figures come from."""
        return "none" if self.source is None else self.source.source

    def add_batch(self, record: BatchRecord) -> None:
        """A batch ended."""
        self.ledger.add_batch(record, keep=self.source is not None)
        if record.end_ns > self._last_ns:
            self._quiet = False

    def observe(self, now_ns: int, reading_uj: int | None, cpu: Cpu, *, holding: bool) -> None:
        """Take in a reading, None for one that is missing, with the CPU time since the last sample.

        `holding` says whether a device of the domain holds a batch.
        """
        self._cpu.add(cpu)
        if holding:
            self._quiet = False
        if reading_uj is None:
            self.missing += self.source is not None
            self.ledger.forget_batches(now_ns - OVERDUE_NS)
            return
        if self._first_uj is None:
            self._first_uj = reading_uj
        else:
            energy_uj = max(0, reading_uj - self._first_uj - self.counter_uj)
            self._add(now_ns, energy_uj)
            self.counter_uj += energy_uj
        self._recent.append((now_ns, self.counter_uj))
        while len(self._recent) > 2 and self._recent[1][0] <= now_ns - _WATTS_NS:
            self._recent.popleft()
        self._last_ns = now_ns
        self._cpu = Cpu({}, 0, 0)
        self._quiet = True

    def _add(self, now_ns: int, energy_uj: int) -> None:
        elapsed_ns, cpu = now_ns - self._last_ns, self._cpu
        quiet = self._quiet and (not self._by_cpu or cpu.sum_ns <= QUIET_SHARE * elapsed_ns)
        self.idle.observe(elapsed_ns, energy_uj, quiet=quiet)
        self.ledger.add_interval(
            Interval(
                start_ns=self._last_ns,
                end_ns=now_ns,
                energy_uj=energy_uj,
                idle_uj=self.idle.energy_uj(elapsed_ns),
                cpu_ns=cpu.workers_ns,
                front_ns=cpu.front_ns if self._by_cpu else 0,
                other_ns=cpu.other_ns if self._by_cpu else 0,
            )
        )

    def settle(self, now_ns: int, known_until_ns: int, held_since_ns: Mapping[str, int]) -> None:
        """Book what can be."""
        self.ledger.settle(known_until_ns, overdue_ns=now_ns - OVERDUE_NS, held_since_ns=held_since_ns)

    @property
    def watts(self) -> float:
        """Mean power over the last second or so."""
        if len(self._recent) < 2:
            return 0.0
        (start_ns, start_uj), (end_ns, end_uj) = self._recent[0], self._recent[-1]
        return (end_uj - start_uj) * 1e3 / max(1, end_ns - start_ns)

    @property
    def drift_uj(self) -> int:
        """What the counter counted and no account has; anything but 0 is a fault."""
        return self.counter_uj - self.ledger.booked_uj() - self.ledger.pending_uj

    def active_watts(self, device: str) -> float | None:
        """What a device takes above idle while it is busy: as seen lately, else as stated; None where nobody knows."""
        if self.source is None:
            return None
        seen = self.ledger.active_watts(device)
        return self.source.stated_active_watts(device) if seen is None else seen
