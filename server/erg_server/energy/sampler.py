"""Reads every counter ten times a second and has the books made. Owns the ledgers; the event loop alone calls it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from erg_server.clock import Clock
from erg_server.devices.device import Device
from erg_server.energy.account import Account, AccountTotal, Source
from erg_server.energy.batch_log import BatchLog
from erg_server.energy.cpu_time import ProcessTime, machine_cpu_ns, process_cpu_ns
from erg_server.energy.interval import DomainDevice
from erg_server.energy.metered_domain import Cpu, MeteredDomain
from erg_server.energy.power_source import Activity, PowerSource

log = logging.getLogger(__name__)

_THOUSANDTHS: Final = 1000
_TIME_ALONE_S: Final = 1.0


_LATE_NS: Final = 50_000_000
"""Half of the usual time between two samples."""


@dataclass(frozen=True, slots=True)
class _State:
    """How things stood as a sample began: which batches were out since when, and until when all are known by domain."""

    now_ns: int
    activity: Activity
    cpu: Cpu
    held_since_ns: dict[str, int]
    known_until_ns: dict[str, int]


class MeteredWorker(Protocol):
    """What it asks of a worker."""

    device: Device

    @property
    def pid(self) -> int | None:
        """Of its process, None without one."""
        ...


class EnergyMeter:
    """Every domain of this machine that the server uses, and the accounts that their energy and time are booked on."""

    def __init__(
        self,
        *,
        clock: Clock,
        batch_log: BatchLog,
        workers: Sequence[MeteredWorker],
        sources: Sequence[PowerSource] = (),
        process_cpu: Callable[[int], int | None] = process_cpu_ns,
        machine_cpu: Callable[[], int | None] = machine_cpu_ns,
    ) -> None:
        self._clock = clock
        self._log = batch_log
        self._workers = {worker.device.name: worker for worker in workers}
        self._process_cpu = process_cpu
        # A model of what the server takes has no part for others.
        self._machine_cpu = machine_cpu if any(source.counts_all for source in sources) else None
        self._front_pid = os.getpid()
        self._front = ProcessTime()
        self._times = {name: ProcessTime() for name in self._workers}
        self._machine_ns: int | None = None
        self._overdrawn_ns = 0
        self.domains = _domains([worker.device for worker in workers], sources)
        self._of_device = {
            name: tuple(domain for domain in self.domains if name in domain.devices) for name in self._workers
        }
        # Before workers start, so that what they take from their first moment is within an interval.
        self.sample()

    @property
    def _time_alone(self) -> bool:
        return all(domain.source is None for domain in self.domains)

    def refresh(self) -> None:
        """Book device time up to now before it is shown, where no source of power is read all the time anyway."""
        if self._time_alone:
            self.sample()

    def totals(self) -> Mapping[Account, AccountTotal]:
        """What is booked on each account since the server started."""
        return {account: total for domain in self.domains for account, total in domain.ledger.totals.items()}

    def active_watts(self, device: str) -> tuple[float, Source]:
        """See `BusyPower`: of every domain that the device takes energy from, modelled if one of them is."""
        watts = 0.0
        source: Source = "none"
        for domain in self._of_device.get(device, ()):
            found = domain.active_watts(device)
            if found is not None:
                watts += found
                source = "modelled" if "modelled" in {source, domain.label} else domain.label
        return watts, source

    def source_of(self, domain: str) -> Source:
        """Where the energy of a domain's accounts comes from."""
        return next((each.label for each in self.domains if each.domain == domain), "none")

    def sample(self) -> None:
        """Take in what happened since the last call, and book what can be."""
        state = self._look()
        self._book(state, self._read(state.activity))

    async def sample_apart(self) -> None:
        """The same, with the counters read by a thread: a driver that hangs must not keep the event loop.

        A reading that took long is of another time than the activity that it would be split by, and counts as missing.
        """
        state = self._look()
        readings = await asyncio.to_thread(self._read, state.activity)
        late = self._clock.now_ns() - state.now_ns > _LATE_NS
        self._book(state, dict.fromkeys(readings) if late else readings)

    def _look(self) -> _State:
        now_ns = self._clock.now_ns()
        for record in self._log.take(now_ns):
            for domain in self._of_device.get(record.device, ()):
                domain.add_batch(record)
        cpu = self._cpu_times()
        since_ns = {name: since for name in self._workers if (since := self._log.held_since(name)) is not None}
        activity = Activity(
            now_ns=now_ns,
            cpu_ns=self._front.total_ns + sum(each.total_ns for each in self._times.values()),
            held_ns={name: self._log.held_ns(name, now_ns) for name in self._workers},
        )
        known_until_ns = {each.domain: self._log.settled_until(each.devices, now_ns) for each in self.domains}
        return _State(now_ns, activity, cpu, since_ns, known_until_ns)

    def _read(self, activity: Activity) -> dict[str, int | None]:
        """What each domain's counter says."""
        sources = [domain.source for domain in self.domains if domain.source is not None]
        return {source.domain: source.read(activity) for source in sources}

    def _book(self, state: _State, readings_uj: Mapping[str, int | None]) -> None:
        for domain in self.domains:
            holding = any(name in state.held_since_ns for name in domain.devices)
            domain.observe(state.now_ns, readings_uj.get(domain.domain), state.cpu, holding=holding)
            domain.settle(state.now_ns, state.known_until_ns[domain.domain], state.held_since_ns)

    def _cpu_times(self) -> Cpu:
        """CPU time since the last call."""
        front_ns = self._front.observe(self._front_pid, self._process_cpu(self._front_pid))
        workers_ns = {}
        for name, worker in self._workers.items():
            pid = worker.pid
            workers_ns[name] = self._times[name].observe(pid, None if pid is None else self._process_cpu(pid))
        return Cpu(workers_ns, front_ns, self._others(front_ns + sum(workers_ns.values())))

    def _others(self, own_ns: int) -> int:
        """CPU time of everything else since the last call.

        The machine's counts in steps of 10 ms, so a difference may be below what the server itself took: it is made up
        for by the next ones, and never counted back.
        """
        machine_ns = None if self._machine_cpu is None else self._machine_cpu()
        if machine_ns is None:
            return 0
        if self._machine_ns is None:
            self._machine_ns = machine_ns
            return 0
        balance_ns = self._overdrawn_ns + machine_ns - self._machine_ns - own_ns
        self._machine_ns, self._overdrawn_ns = machine_ns, min(0, balance_ns)
        return max(0, balance_ns)

    async def run(self, every_s: float) -> None:
        """Sample for ever; what fails once is logged and tried again.

        Without a source of power there is only device time to book, which is no less exact for being booked later.
        """
        if self._time_alone:
            every_s = max(every_s, _TIME_ALONE_S)
        apart = any(domain.source is not None and domain.source.may_block for domain in self.domains)
        while True:
            await asyncio.sleep(every_s)
            try:
                if apart:
                    await self.sample_apart()
                else:
                    self.sample()
            except Exception:
                log.exception("taking a sample of energy failed; it is tried again")

    def close(self) -> None:
        """Release the sources."""
        for domain in self.domains:
            if domain.source is not None:
                domain.source.close()


def _domains(devices: Sequence[Device], sources: Iterable[PowerSource]) -> tuple[MeteredDomain, ...]:
    """A domain for every host of devices, and the CPU's where it has a source: all workers take CPU time."""
    by_domain = {source.domain: source for source in sources}
    made = []
    for domain in dict.fromkeys([*(device.host for device in devices), *by_domain]):
        if domain == "cpu":
            parts = [DomainDevice(each.name, home=each.host == "cpu", threads=each.threads) for each in devices]
        else:
            shares = gpu_shares([device for device in devices if device.host == domain])
            parts = [DomainDevice(name, home=True, share=share) for name, share in shares.items()]
        made.append(MeteredDomain(domain, by_domain.get(domain), parts))
    return tuple(made)


def gpu_shares(devices: Sequence[Device]) -> dict[str, int]:
    """How much of a GPU each of its devices is, in thousandths of the largest: by threads (MPS) or memory (MIG)."""
    sizes = {device.name: device.mps_percent or device.memory_bytes or 1 for device in devices}
    largest = max(sizes.values(), default=1)
    return {name: max(1, size * _THOUSANDTHS // largest) for name, size in sizes.items()}
