"""What a counter counted, on the accounts of what ran: who gets how much, and that the sum is the counter."""

from __future__ import annotations

from collections.abc import Sequence

from erg_server.energy.account import Account, AccountKind
from erg_server.energy.batch_log import BatchRecord, Share
from erg_server.energy.domain_ledger import DomainLedger
from erg_server.energy.interval import DomainDevice, Interval
from hypothesis import given
from hypothesis import strategies as st

from tests.server.energy.builders import MS, S, batch, booked, interval, settle


def cpu_ledger(*names: str) -> DomainLedger:
    devices = [DomainDevice(name, home=True) for name in names or ("cpu0", "cpu1")]
    return DomainLedger("cpu", devices, by_overlap=False)


def gpu_ledger(**shares: int) -> DomainLedger:
    devices = [DomainDevice(name, home=True, share=share) for name, share in (shares or {"gpu0": 1}).items()]
    return DomainLedger("gpu0", devices, by_overlap=True)


def test_idle_comes_first_and_the_rest_is_split_by_cpu_time() -> None:
    ledger = cpu_ledger()
    ledger.add_batch(batch(0, 100 * MS))
    cpu_ns = {"cpu0": 60 * MS, "cpu1": 20 * MS}
    ledger.add_interval(interval(0, 100 * MS, 1000, idle_uj=200, cpu_ns=cpu_ns, front_ns=20 * MS, other_ns=60 * MS))
    settle(ledger)
    assert booked(ledger.totals) == {
        ("idle", "", ""): 200,
        ("inference", "cpu0", "m"): 300,
        ("worker", "cpu1", ""): 100,
        ("front", "", ""): 100,
        ("other", "", ""): 300,
    }


def test_an_interval_takes_no_less_than_nothing_above_idle() -> None:
    ledger = cpu_ledger()
    ledger.add_interval(interval(0, S, 100, idle_uj=500, cpu_ns={"cpu0": S}))
    settle(ledger)
    assert booked(ledger.totals) == {("idle", "", ""): 100}


def test_what_nobody_claims_is_idle() -> None:
    ledger = gpu_ledger()
    ledger.add_interval(interval(0, S, 700, idle_uj=500))
    settle(ledger)
    assert booked(ledger.totals) == {("idle", "", ""): 700}


def test_a_devices_part_is_split_over_its_batches_by_overlap_in_time() -> None:
    ledger = gpu_ledger()
    ledger.add_batch(batch(0, 150, device="gpu0", model="a"))
    ledger.add_batch(batch(150, 300, device="gpu0", model="b"))
    ledger.add_interval(interval(0, 100, 1000))
    ledger.add_interval(interval(100, 200, 1000))
    ledger.add_interval(interval(200, 300, 4000))
    settle(ledger)
    assert booked(ledger.totals) == {("inference", "gpu0", "a"): 1500, ("inference", "gpu0", "b"): 4500}


def test_batches_that_came_as_one_record_weigh_by_the_time_that_they_ran() -> None:
    ledger = gpu_ledger()
    several = batch(0, 100, device="gpu0", model="a")
    several.busy_ns, several.batches = 20, 4
    ledger.add_batch(several)
    ledger.add_batch(batch(100, 180, device="gpu0", model="b"))
    ledger.add_interval(interval(0, 200, 1000))
    settle(ledger)
    assert booked(ledger.totals) == {("inference", "gpu0", "a"): 200, ("inference", "gpu0", "b"): 800}
    assert [total.busy_ns for total in ledger.totals.values()] == [20, 80]


def test_parts_of_one_gpu_share_what_its_counter_says_by_their_share_and_time() -> None:
    ledger = gpu_ledger(**{"gpu0.mig0": 1000, "gpu0.mig1": 500})
    ledger.add_batch(batch(0, 100, device="gpu0.mig0", model="a"))
    ledger.add_batch(batch(0, 50, device="gpu0.mig1", model="b"))
    ledger.add_interval(interval(0, 100, 1000, idle_uj=500))
    settle(ledger)
    assert booked(ledger.totals) == {
        ("idle", "", ""): 500,
        ("inference", "gpu0.mig0", "a"): 400,
        ("inference", "gpu0.mig1", "b"): 100,
    }


def test_a_batchs_part_is_split_over_its_shares_by_weight() -> None:
    ledger = gpu_ledger()
    shares: list[Share] = [("inference", "", 6, 3), ("inference", "acme", 2, 1), ("padding", "", 2, 0)]
    ledger.add_batch(batch(0, 100, shares, device="gpu0"))
    ledger.add_interval(interval(0, 100, 1000))
    settle(ledger)
    found = {
        (each.kind, each.tenant): (total.energy_uj, total.busy_ns, total.rows) for each, total in ledger.totals.items()
    }
    assert found == {
        ("inference", ""): (600, 60, 3),
        ("inference", "acme"): (200, 20, 1),
        ("padding", ""): (200, 20, 0),
    }


def test_loading_beside_a_short_batch_is_not_the_batchs() -> None:
    ledger = cpu_ledger("cpu0")
    ledger.add_batch(batch(0, 1 * MS))
    ledger.add_interval(interval(0, 100 * MS, 1000, cpu_ns={"cpu0": 100 * MS}))
    settle(ledger)
    found = booked(ledger.totals)
    assert found["inference", "cpu0", "m"] == 11  # a millisecond, and a tenth for handling its frame
    assert found["worker", "cpu0", ""] == 989


def test_wide_workers_batches_may_take_all_of_their_threads() -> None:
    ledger = DomainLedger("cpu", [DomainDevice("cpu0", home=True, threads=4)], by_overlap=False)
    ledger.add_batch(batch(0, 100 * MS))
    ledger.add_interval(interval(0, 100 * MS, 1000, cpu_ns={"cpu0": 390 * MS}))
    settle(ledger)
    assert booked(ledger.totals) == {("inference", "cpu0", "m"): 1000}


def test_an_interval_is_pending_until_every_batch_that_may_have_run_in_it_is_known() -> None:
    ledger = gpu_ledger()
    ledger.add_interval(interval(0, 100, 1000))
    ledger.add_interval(interval(100, 200, 1000))
    ledger.settle(99, held_since_ns={"gpu0": 99})
    assert (ledger.pending_uj, ledger.booked_uj()) == (2000, 0)
    ledger.settle(150, held_since_ns={"gpu0": 150})
    assert (ledger.pending_uj, ledger.booked_uj()) == (1000, 1000)
    ledger.add_batch(batch(150, 190, device="gpu0"))
    settle(ledger, 200)
    assert ledger.pending_uj == 0
    assert booked(ledger.totals) == {("idle", "", ""): 1000, ("inference", "gpu0", "m"): 1000}


def test_an_overdue_interval_goes_to_the_worker_that_still_holds_a_batch() -> None:
    ledger = gpu_ledger()
    ledger.add_interval(interval(0, 100, 1000, idle_uj=100))
    ledger.settle(20, overdue_ns=100, held_since_ns={"gpu0": 20})
    assert booked(ledger.totals) == {("idle", "", ""): 100, ("worker", "gpu0", ""): 900}
    ledger.add_batch(batch(20, 180, device="gpu0"))
    ledger.add_interval(interval(100, 200, 1000))
    settle(ledger)
    assert booked(ledger.totals)["inference", "gpu0", "m"] == 1000


def test_a_batch_that_is_still_out_claims_no_more_of_an_overdue_interval_than_it_lasted() -> None:
    ledger = gpu_ledger(**{"gpu0.mig0": 1000, "gpu0.mig1": 1000})
    ledger.add_batch(batch(100, 200, device="gpu0.mig1"))
    ledger.add_interval(interval(100, 200, 1000))
    ledger.settle(10, overdue_ns=200, held_since_ns={"gpu0.mig0": 10})
    assert booked(ledger.totals) == {("worker", "gpu0.mig0", ""): 500, ("inference", "gpu0.mig1", "m"): 500}


def test_time_and_rows_are_booked_at_once_and_in_the_home_domain_alone() -> None:
    away = DomainLedger("cpu", [DomainDevice("gpu0", home=False)], by_overlap=False)
    home = gpu_ledger()
    for ledger in (away, home):
        ledger.add_batch(batch(0, 100, [("late", "acme", 5, 5)], device="gpu0"))
    account = Account("gpu0", "late", "gpu0", "m", "1", "acme")
    assert (home.totals[account].busy_ns, home.totals[account].rows) == (100, 5)
    assert all(total.busy_ns == total.rows == 0 for total in away.totals.values())


def test_batches_of_other_domains_are_not_its_own() -> None:
    ledger = gpu_ledger()
    ledger.add_batch(batch(0, 100, device="gpu7"))
    assert ledger.totals == {}


def test_batches_for_which_no_interval_comes_are_forgotten() -> None:
    ledger = gpu_ledger()
    ledger.add_batch(batch(0, 100, device="gpu0"))
    ledger.forget_batches(101)
    ledger.add_interval(interval(0, 100, 1000))
    settle(ledger)
    assert booked(ledger.totals) == {("idle", "", ""): 1000}


def test_the_power_of_a_busy_device_is_what_its_last_batches_took_above_idle() -> None:
    ledger = gpu_ledger()
    assert ledger.active_watts("gpu0") is None
    ledger.add_batch(batch(0, S // 2, device="gpu0"))
    ledger.add_interval(interval(0, S, 150_000_000, idle_uj=50_000_000))
    settle(ledger)
    assert ledger.active_watts("gpu0") == 200.0
    assert ledger.active_watts("gpu7") is None


DEVICES = ("cpu0", "cpu1", "cpu2")
KINDS: tuple[AccountKind, ...] = ("inference", "padding", "late", "cancelled", "failed", "warmup")
shares = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.sampled_from(["", "acme", "zeta"]), st.integers(0, 1 << 40), st.integers(0, 64)
    ),
    min_size=1,
    max_size=5,
)
batches = st.lists(
    st.tuples(st.sampled_from(DEVICES), st.sampled_from("abc"), st.integers(0, 300), st.integers(0, 100), shares),
    max_size=12,
)
intervals = st.lists(
    st.tuples(
        st.integers(1, 100),
        st.integers(0, 1 << 50),
        st.integers(0, 1 << 50),
        st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 200)),
        st.integers(0, 200),
        st.integers(0, 200),
    ),
    max_size=12,
)


@given(batches, intervals, st.lists(st.integers(0, 600), max_size=6), st.booleans(), st.data())
def test_no_split_creates_or_loses_energy_or_time(
    ran: Sequence[tuple[str, str, int, int, list[Share]]],
    counted: Sequence[tuple[int, int, int, dict[str, int], int, int]],
    watermarks: Sequence[int],
    by_overlap: bool,
    data: st.DataObject,
) -> None:
    ledger = DomainLedger("cpu", [DomainDevice(name, home=True) for name in DEVICES], by_overlap=by_overlap)
    events: list[BatchRecord | Interval | int] = []
    for device, model, start_ns, length_ns, parts in sorted(ran, key=lambda each: each[2]):
        events.append(batch(start_ns, start_ns + length_ns, parts, device=device, model=model))
    at_ns = 0
    for length_ns, energy_uj, idle_uj, cpu_ns, front_ns, other_ns in counted:
        events.append(
            interval(
                at_ns,
                at_ns + length_ns,
                energy_uj,
                idle_uj=idle_uj,
                cpu_ns=cpu_ns,
                front_ns=front_ns,
                other_ns=other_ns,
            )
        )
        at_ns += length_ns
    events += watermarks
    order = data.draw(st.permutations(range(len(events))))
    # Intervals and batches keep their order among themselves, as they come; how they interleave is drawn.
    ordered = _merged(events, order)
    counter_uj = time_ns = rows = 0
    for event in ordered:
        if isinstance(event, BatchRecord):
            ledger.add_batch(event)
            time_ns += max(1, event.end_ns - event.start_ns)
            rows += sum(share[3] for share in event.shares)
        elif isinstance(event, Interval):
            ledger.add_interval(event)
            counter_uj += event.energy_uj
        else:
            ledger.settle(event, overdue_ns=event // 2, held_since_ns={"cpu0": event})
        assert ledger.booked_uj() + ledger.pending_uj == counter_uj
        assert all(total.energy_uj >= 0 for total in ledger.totals.values())
    settle(ledger)
    assert ledger.pending_uj == 0
    assert ledger.booked_uj() == counter_uj
    assert sum(total.busy_ns for total in ledger.totals.values()) == time_ns
    assert sum(total.rows for total in ledger.totals.values()) == rows


def _merged(events: Sequence[BatchRecord | Interval | int], order: Sequence[int]) -> list[BatchRecord | Interval | int]:
    queues = {kind: iter([each for each in events if type(each) is kind]) for kind in (BatchRecord, Interval, int)}
    return [next(queues[type(events[at])]) for at in order]
