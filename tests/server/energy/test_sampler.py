"""The meter over fake counters, clocks and workers: what each kind of trouble does to the books."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from erg_server.clock import ManualClock
from erg_server.devices.device import Device
from erg_server.energy.account import Source
from erg_server.energy.batch_log import BatchLog, Share
from erg_server.energy.metered_domain import OVERDUE_NS
from erg_server.energy.power_source import Activity, PowerSource
from erg_server.energy.sampler import EnergyMeter, gpu_shares
from erg_server.energy.samples import sample_accounts, sample_domains

from tests.server.energy.builders import MS, S, booked

FRONT = os.getpid()
SERVED: list[Share] = [("inference", "", 1, 1)]


@dataclass
class FakeSource:
    """A counter that the test sets; None does not answer."""

    domain: str
    total_uj: int | None = 0
    source: Source = "measured"
    idle_watts: float | None = 0.0
    counts_all: bool = False
    may_block: bool = False
    closed: bool = False
    seen: list[Activity] = field(default_factory=list)

    def read(self, activity: Activity) -> int | None:
        self.seen.append(activity)
        return self.total_uj

    def stated_active_watts(self, device: str) -> float | None:
        return 7.0 if self.source == "modelled" and device else None

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeMeteredWorker:
    device: Device
    pid: int | None = None


CPU0 = Device(kind="cpu", id=0, cores=(0,))
GPU0 = Device(kind="gpu", id=0, gpu_uuid="GPU-0")


class Bench:
    """A meter whose every input the test sets."""

    def __init__(self, devices: Sequence[Device], *sources: FakeSource) -> None:
        self.clock = ManualClock(S)
        self.log = BatchLog()
        self.cpu_ns: dict[int, int] = {FRONT: 0}
        self.machine_ns: int | None = 0
        self.workers = [FakeMeteredWorker(device, pid) for pid, device in enumerate(devices, 100_000_000)]
        for worker in self.workers:
            assert worker.pid is not None
            self.cpu_ns[worker.pid] = 0
        listed: list[PowerSource] = list(sources)
        self.meter = EnergyMeter(
            clock=self.clock,
            batch_log=self.log,
            workers=self.workers,
            sources=listed,
            process_cpu=self.cpu_ns.get,
            machine_cpu=lambda: self.machine_ns,
        )

    def ran(self, device: str, ns: int, shares: list[Share] | None = None) -> None:
        """A batch of `ns` nanoseconds that begins now and ends then."""
        start_ns = self.clock.now_ns()
        self.log.handed(device, start_ns)
        end_ns = self.clock.advance(ns)
        self.log.ended(device, "m", "1", start_ns=start_ns, end_ns=end_ns, shares=shares or SERVED)

    def sample(self) -> dict[tuple[str, str, str], int]:
        self.meter.sample()
        for domain in self.meter.domains:
            assert domain.drift_uj == 0
            assert domain.counter_uj == domain.ledger.booked_uj() + domain.ledger.pending_uj
        return booked(self.meter.totals())


def test_a_cpu_is_split_by_cpu_time_over_front_workers_and_whatever_else_runs() -> None:
    source = FakeSource("cpu", idle_watts=10.0, counts_all=True)
    bench = Bench([CPU0], source)
    bench.ran("cpu0", 40 * MS)
    bench.clock.advance(60 * MS)
    bench.cpu_ns |= {FRONT: 20 * MS, 100_000_000: 40 * MS}
    bench.machine_ns = 100 * MS
    source.total_uj = 2_000_000
    assert bench.sample() == {
        ("idle", "", ""): 1_000_000,
        ("front", "", ""): 200_000,
        ("inference", "cpu0", "m"): 400_000,
        ("other", "", ""): 400_000,
    }


def test_the_machines_ticks_lag_and_are_never_counted_twice() -> None:
    source = FakeSource("cpu", counts_all=True)
    bench = Bench([CPU0], source)
    for machine_ms, front_ms in ((0, 8), (20, 16), (20, 24), (40, 32)):
        bench.clock.advance(100 * MS)
        bench.machine_ns = machine_ms * MS
        bench.cpu_ns[FRONT] = front_ms * MS
        source.total_uj = (source.total_uj or 0) + 1_000
        bench.sample()
    # 8 of the machine's 40 ms were not the server's: 4 of 12 in the second and in the fourth interval.
    assert booked(bench.meter.totals()) == {("front", "", ""): 3_334, ("other", "", ""): 666}


def test_a_model_of_what_the_server_takes_has_no_part_for_others() -> None:
    source = FakeSource("cpu", source="modelled")
    bench = Bench([CPU0], source)
    bench.clock.advance(100 * MS)
    bench.cpu_ns[FRONT] = 1 * MS
    bench.machine_ns = 200 * MS
    source.total_uj = 1_000
    assert bench.sample() == {("front", "", ""): 1_000}


def test_a_missing_sample_loses_nothing() -> None:
    source = FakeSource("cpu")
    bench = Bench([CPU0], source)
    source.total_uj = None
    bench.ran("cpu0", 100 * MS)
    bench.cpu_ns[100_000_000] = 100 * MS
    assert bench.sample() == {}
    bench.ran("cpu0", 100 * MS)
    bench.cpu_ns[100_000_000] = 200 * MS
    source.total_uj = 5_000
    assert bench.sample() == {("inference", "cpu0", "m"): 5_000}
    assert bench.meter.domains[0].missing == 1


def test_the_first_reading_may_come_late_and_is_where_the_counter_starts() -> None:
    source = FakeSource("gpu0", total_uj=None)
    bench = Bench([GPU0], source)
    bench.clock.advance(S)
    bench.sample()
    source.total_uj = 900_000
    bench.clock.advance(S)
    assert bench.sample() == {}
    source.total_uj = 950_000
    bench.ran("gpu0", S)
    assert bench.sample() == {("inference", "gpu0", "m"): 50_000}


def test_a_gpu_that_vanishes_stops_its_books_and_no_other() -> None:
    gpu, cpu = FakeSource("gpu0"), FakeSource("cpu")
    bench = Bench([GPU0], gpu, cpu)
    gpu.total_uj = 1_000
    bench.ran("gpu0", S)
    bench.sample()
    gpu.total_uj = None
    for _ in range(100):
        bench.ran("gpu0", S)
        cpu.total_uj = (cpu.total_uj or 0) + 10
        bench.cpu_ns[FRONT] += S
        bench.sample()
    domains = {domain.domain: domain for domain in bench.meter.domains}
    assert domains["gpu0"].counter_uj == 1_000
    assert domains["gpu0"].missing == 100
    assert domains["cpu"].counter_uj == 1_000
    kept = domains["gpu0"].ledger._books["gpu0"].batches
    assert len(kept) <= OVERDUE_NS // S + 2  # What waits for it is bounded.


def test_energy_waits_for_the_batches_that_are_out_and_not_for_ever() -> None:
    source = FakeSource("gpu0")
    bench = Bench([GPU0], source)
    bench.log.handed("gpu0", bench.clock.now_ns())
    bench.clock.advance(S)
    source.total_uj = 1_000
    assert bench.sample() == {}
    assert bench.meter.domains[0].ledger.pending_uj == 1_000
    bench.clock.advance(OVERDUE_NS)
    source.total_uj = 2_000
    assert bench.sample() == {("worker", "gpu0", ""): 1_000}
    bench.log.ended("gpu0", "m", "1", start_ns=S, end_ns=bench.clock.now_ns(), shares=SERVED)
    assert bench.sample() == {("worker", "gpu0", ""): 1_000, ("inference", "gpu0", "m"): 1_000}


def test_a_worker_of_a_gpu_takes_energy_of_the_cpu_too_and_its_time_counts_once() -> None:
    gpu, cpu = FakeSource("gpu0"), FakeSource("cpu")
    bench = Bench([GPU0], gpu, cpu)
    bench.ran("gpu0", 100 * MS)
    bench.cpu_ns[100_000_000] = 50 * MS
    gpu.total_uj, cpu.total_uj = 9_000, 1_000
    assert bench.sample() == {("inference", "gpu0", "m"): 10_000}
    accounts = {account.domain: total for account, total in bench.meter.totals().items()}
    assert accounts["gpu0"].busy_ns == 100 * MS
    assert accounts["cpu"].busy_ns == 0


def test_without_a_source_time_and_rows_are_booked_and_no_energy() -> None:
    bench = Bench([CPU0])
    bench.ran("cpu0", 30 * MS, [("inference", "acme", 4, 4)])
    bench.sample()
    ((account, total),) = bench.meter.totals().items()
    assert (account.domain, account.tenant) == ("cpu", "acme")
    assert (total.energy_uj, total.busy_ns, total.rows) == (0, 30 * MS, 4)
    assert bench.meter.active_watts("cpu0") == (0.0, "none")
    assert bench.meter.source_of("cpu") == "none"


def test_a_scrape_books_device_time_up_to_now_and_reads_no_source_of_power() -> None:
    time_alone, source = Bench([CPU0]), FakeSource("gpu0")
    time_alone.ran("cpu0", 30 * MS)
    time_alone.meter.refresh()
    (total,) = time_alone.meter.totals().values()
    assert total.busy_ns == 30 * MS
    powered = Bench([GPU0], source)
    source.seen.clear()
    powered.meter.refresh()
    assert not source.seen


async def test_without_a_source_a_sample_a_second_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr("erg_server.energy.sampler.asyncio.sleep", sleep)
    for bench in (Bench([CPU0]), Bench([GPU0], FakeSource("gpu0"))):
        with pytest.raises(asyncio.CancelledError):
            await bench.meter.run(0.1)
    assert waits == [1.0, 0.1]


def test_idle_power_is_learnt_from_quiet_seconds_only() -> None:
    source = FakeSource("gpu0", idle_watts=None)
    bench = Bench([GPU0], source)
    total_uj = 0
    for number in range(40):
        if number < 20:
            bench.clock.advance(100 * MS)
            total_uj += 5_000_000
        else:
            bench.ran("gpu0", 100 * MS)
            total_uj += 30_000_000
        source.total_uj = total_uj
        bench.sample()
    assert bench.meter.domains[0].idle.watts == 50.0
    assert booked(bench.meter.totals()) == {
        ("idle", "", ""): 40 * 5_000_000,
        ("inference", "gpu0", "m"): 20 * 25_000_000,
    }
    assert bench.meter.active_watts("gpu0") == (250.0, "measured")
    assert bench.meter.domains[0].watts == pytest.approx(300.0)


def test_a_second_in_which_a_batch_ran_or_was_out_is_not_quiet() -> None:
    source = FakeSource("gpu0", idle_watts=None)
    bench = Bench([GPU0], source)
    for number in range(60):
        if number < 30:
            bench.ran("gpu0", 50 * MS)
            bench.clock.advance(50 * MS)
        else:
            if number == 30:
                bench.log.handed("gpu0", bench.clock.now_ns())
            bench.clock.advance(100 * MS)
        source.total_uj = (source.total_uj or 0) + 30_000_000
        bench.sample()
    assert not bench.meter.domains[0].idle.known


def test_a_cpu_on_which_anything_runs_is_not_quiet() -> None:
    source = FakeSource("cpu", idle_watts=None, counts_all=True)
    bench = Bench([CPU0], source)
    for number in range(60):
        bench.clock.advance(100 * MS)
        bench.machine_ns = (bench.machine_ns or 0) + (10 * MS if number < 30 else 1 * MS)
        source.total_uj = (source.total_uj or 0) + (9_000_000 if number < 30 else 2_000_000)
        bench.sample()
        assert bench.meter.domains[0].idle.watts in {0.0, 20.0}
    assert bench.meter.domains[0].idle.known


def test_a_device_that_takes_modelled_energy_too_is_not_called_measured() -> None:
    gpu, cpu = FakeSource("gpu0"), FakeSource("cpu", source="modelled")
    bench = Bench([GPU0], gpu, cpu)
    assert bench.meter.active_watts("gpu0") == (7.0, "modelled")
    bench.ran("gpu0", S)
    bench.cpu_ns[100_000_000] = S
    gpu.total_uj, cpu.total_uj = 100_000_000, 5_000_000
    bench.sample()
    assert bench.meter.active_watts("gpu0") == (105.0, "modelled")
    assert bench.meter.active_watts("gpu9") == (0.0, "none")


def test_a_scrape_shows_the_books_with_tenants_together() -> None:
    source = FakeSource("gpu0", idle_watts=10.0)
    bench = Bench([GPU0], source)
    bench.ran("gpu0", S, [("inference", "acme", 1, 1), ("inference", "", 3, 3)])
    source.total_uj = 30_000_000
    bench.sample()
    (domain,) = sample_domains(bench.meter)
    assert (domain.domain, domain.source, domain.counter_joules, domain.idle_watts) == ("gpu0", "measured", 30, 10)
    accounts = {each.account: each for each in sample_accounts(bench.meter)}
    assert set(accounts) == {"idle", "inference"}
    assert (accounts["inference"].joules, accounts["inference"].busy_seconds) == (20.0, 1.0)
    assert accounts["inference"].source == "measured"


def test_parts_of_a_gpu_are_shares_by_threads_or_memory() -> None:
    mps = [Device(kind="gpu", id=0, partition=f"mps{n}", mps_percent=size) for n, size in enumerate((75, 25))]
    mig = [Device(kind="gpu", id=0, partition=f"mig{n}", memory_bytes=size) for n, size in enumerate((10, 40))]
    assert gpu_shares(mps) == {"gpu0.mps0": 1000, "gpu0.mps1": 333}
    assert gpu_shares(mig) == {"gpu0.mig0": 250, "gpu0.mig1": 1000}
    assert gpu_shares([GPU0]) == {"gpu0": 1000}


class HangingSource(FakeSource):
    """One that answers when it is told to."""

    def __init__(self, domain: str) -> None:
        super().__init__(domain, may_block=True)
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def read(self, activity: Activity) -> int | None:
        self.asked.set()
        assert self.may_answer.wait(20)
        return super().read(activity)


async def test_a_driver_that_hangs_keeps_neither_the_event_loop_nor_any_energy() -> None:
    source = HangingSource("gpu0")
    bench = Bench([GPU0], source)
    source.may_answer.clear()
    source.asked.clear()
    hung = asyncio.create_task(bench.meter.sample_apart())
    await asyncio.to_thread(source.asked.wait, 20)
    bench.ran("gpu0", S)  # The event loop goes on meanwhile.
    source.total_uj = 1_000
    source.may_answer.set()
    await hung
    (domain,) = bench.meter.domains
    assert (domain.missing, domain.counter_uj) == (1, 0)
    await bench.meter.sample_apart()
    assert booked(bench.meter.totals()) == {("inference", "gpu0", "m"): 1_000}
    assert (domain.missing, domain.drift_uj) == (1, 0)


async def test_a_batch_that_ends_while_a_counter_is_read_is_waited_for() -> None:
    source = HangingSource("gpu0")
    bench = Bench([GPU0], source)
    bench.log.handed("gpu0", bench.clock.now_ns())
    bench.clock.advance(100 * MS)
    source.total_uj = 1_000
    source.may_answer.clear()
    source.asked.clear()
    reading = asyncio.create_task(bench.meter.sample_apart())
    await asyncio.to_thread(source.asked.wait, 20)
    bench.log.ended("gpu0", "m", "1", start_ns=S, end_ns=bench.clock.advance(MS), shares=SERVED)
    source.may_answer.set()
    await reading
    assert bench.meter.domains[0].ledger.pending_uj == 1_000
    assert bench.sample() == {("inference", "gpu0", "m"): 1_000}


async def test_a_sample_that_fails_is_logged_and_the_next_one_taken(caplog: pytest.LogCaptureFixture) -> None:
    source = FakeSource("gpu0")
    bench = Bench([GPU0], source)
    again = asyncio.Event()

    def read(activity: Activity) -> int:
        source.seen.append(activity)
        if len(source.seen) == 2:
            raise RuntimeError("a fault")
        again.set()
        return 0

    source.read = read  # type: ignore[method-assign]
    source.seen.clear()
    source.seen.append(Activity(now_ns=0, cpu_ns=0, held_ns={}))
    task = asyncio.create_task(bench.meter.run(0.0))
    async with asyncio.timeout(10):
        await again.wait()
    task.cancel()
    assert "taking a sample of energy failed" in caplog.text
