"""A modelled source driven by a recorded run: the books against sums made another way, in plain floating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from erg_server.clock import ManualClock
from erg_server.devices.device import Device
from erg_server.energy.batch_log import BatchLog
from erg_server.energy.modelled_power import ModelledCpuPower
from erg_server.energy.sampler import EnergyMeter
from erg_server.energy.stated_watts import StatedWatts

from tests.server.energy.builders import booked
from tests.server.energy.trace import Step, read_trace, replayed_events

IDLE_W, BUSY_W, CORES = 20.0, 95.0, 2
DEVICES = [Device(kind="cpu", id=number, cores=(number,)) for number in range(2)]


@dataclass
class TracedWorker:
    device: Device
    pid: int


def replay(trace: Sequence[Step], lost: frozenset[int] = frozenset()) -> EnergyMeter:
    """The meter after a trace, of which some samples are not taken."""
    clock, log = ManualClock(trace[0].now_ns), BatchLog()
    workers = [TracedWorker(device, number) for number, device in enumerate(DEVICES, 1)]
    cpu_ns = dict.fromkeys(("front", "cpu0", "cpu1"), 0) | trace[0].cpu_ns
    meter = EnergyMeter(
        clock=clock,
        batch_log=log,
        workers=workers,
        sources=[ModelledCpuPower(StatedWatts(IDLE_W, BUSY_W), cores=CORES, threads={"cpu0": 1, "cpu1": 1})],
        process_cpu=lambda pid: cpu_ns[{1: "cpu0", 2: "cpu1"}.get(pid, "front")],
        machine_cpu=lambda: None,
    )
    for number, step in enumerate(trace[1:], 1):
        for what, event in replayed_events(step):
            if what == "handed":
                log.handed(*event)
            else:
                device, model, start_ns, end_ns, shares = event
                shares = [(kind, tenant, weight, rows) for kind, tenant, weight, rows in shares]
                log.ended(device, model, "1", start_ns=start_ns, end_ns=end_ns, shares=shares)
        clock.advance(step.now_ns - clock.now_ns())
        cpu_ns.update(step.cpu_ns)
        if number not in lost:
            meter.sample()
            assert meter.domains[0].drift_uj == 0
    return meter


@pytest.fixture(scope="module")
def trace() -> list[Step]:
    return read_trace()


def modelled_joules(trace: Sequence[Step]) -> float:
    cpu_s = (sum(trace[-1].cpu_ns.values()) - sum(trace[0].cpu_ns.values())) / 1e9
    return IDLE_W * (trace[-1].now_ns - trace[0].now_ns) / 1e9 + (BUSY_W - IDLE_W) * cpu_s / CORES


def test_the_sum_of_the_accounts_is_the_counter_and_the_model(trace: list[Step]) -> None:
    (domain,) = replay(trace).domains
    assert domain.ledger.pending_uj == 0
    assert domain.ledger.booked_uj() == domain.counter_uj
    assert domain.counter_uj / 1e6 == pytest.approx(modelled_joules(trace), rel=1e-6)
    assert domain.counter_uj > 100_000_000


def test_front_workers_and_idle_are_what_their_time_says(trace: list[Step]) -> None:
    meter = replay(trace)
    joules: dict[str, float] = {}
    for account, total in meter.totals().items():
        whose = account.device or account.kind
        joules[whose] = joules.get(whose, 0.0) + total.energy_uj / 1e6
    for name in ("front", "cpu0", "cpu1"):
        cpu_s = (trace[-1].cpu_ns[name] - trace[0].cpu_ns[name]) / 1e9
        assert joules[name] == pytest.approx((BUSY_W - IDLE_W) * cpu_s / CORES, rel=0.01)
    assert joules["idle"] == pytest.approx(IDLE_W * (trace[-1].now_ns - trace[0].now_ns) / 1e9, rel=0.01)


def test_every_row_and_nanosecond_of_the_batches_is_booked(trace: list[Step]) -> None:
    totals = replay(trace).totals().values()
    ended = [each for step in trace[1:] for each in step.ended]
    assert sum(total.rows for total in totals) == sum(share[3] for each in ended for share in each[4])
    assert sum(total.busy_ns for total in totals) == sum(each[3] - each[2] for each in ended)
    assert len(ended) > 100


def test_samples_that_are_lost_lose_no_energy_and_little_of_whose_it_is(trace: list[Step]) -> None:
    whole = booked(replay(trace).totals())
    lost = frozenset(number for number in range(1, len(trace) - 1) if number % 3)
    meter = replay(trace, lost)
    assert meter.domains[0].counter_uj == pytest.approx(sum(whole.values()), abs=2)
    found = booked(meter.totals())
    key = "inference", "cpu0", "mlp"
    assert found[key] == pytest.approx(whole[key], rel=0.15)
