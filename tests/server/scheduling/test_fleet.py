from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from erg_server.clock import ManualClock
from erg_server.scheduling.fleet import LOAD_WINDOW_NS, SPARE_LOAD, FleetIndex, WaitingOrder, work_class
from erg_server.simulation.device import SimulatedWorker
from erg_server.simulation.virtual_time import VirtualTimers

MS = 1_000_000


@dataclass(eq=False)
class Thing:
    name: str
    place: int = 0


def workers(count: int) -> list[SimulatedWorker]:
    timers = VirtualTimers(ManualClock())
    return [SimulatedWorker(f"w{number}", timers, lambda _, rows: rows) for number in range(count)]


def index(subjects: list[SimulatedWorker]) -> FleetIndex:
    fleets = FleetIndex()
    for worker in subjects:
        fleets.add(worker)
    return fleets


def test_a_later_place_makes_the_earlier_one_stale() -> None:
    places = itertools.count(1)
    one, other = WaitingOrder[Thing](places), WaitingOrder[Thing](places)
    first, second = Thing("first"), Thing("second")
    one.add(first, 10)
    one.add(second, 20)
    other.add(first, 5)
    assert (one.first() or (0, 0, first))[2] is second
    second.place = 0
    assert one.first() is None


def test_places_that_are_stale_do_not_pile_up() -> None:
    order, waits, moves = WaitingOrder[Thing](itertools.count(1)), Thing("waits"), Thing("moves")
    order.add(waits, 0)
    for number in range(10_000):
        order.add(moves, number)
    assert len(order._items) < 200


def test_the_worker_that_is_free_soonest_is_found_as_they_change() -> None:
    subjects = workers(3)
    fleets = index(subjects)
    fleet = fleets.fleet(1)
    taken = []
    for busy_ns in (30 * MS, 20 * MS, 10 * MS):
        account = fleet.soonest()
        assert account is not None
        taken.append(account.worker.name)
        account.worker.submit(1, [], lambda _: None, 1)
        account.charge(0, busy_ns)
    assert taken == ["w0", "w1", "w2"], "idle ones first, in their order"
    assert fleet.idle == 0
    soonest = fleet.soonest()
    assert soonest is not None
    assert soonest.worker.name == "w2"
    assert fleet.free_in_ns(4 * MS) == 6 * MS


def test_a_worker_that_is_done_is_idle_again() -> None:
    subjects = workers(2)
    fleets = index(subjects)
    fleet = fleets.fleet(1)
    account = fleets.account(subjects[0])
    account.worker.submit(1, [], lambda _: None, 1)
    account.charge(0, MS)
    assert (fleet.idle, account.idle) == (1, False)
    subjects[0].kill()
    assert fleet.soonest() is fleets.account(subjects[1]), "a dead one takes nothing"
    subjects[0].ready = True
    account.changed()
    assert (fleet.idle, account.idle, account.until_ns) == (2, True, 0)


def test_models_with_the_same_workers_share_a_fleet() -> None:
    subjects = workers(2)
    subjects[0].models = {1, 2, 3}
    subjects[1].models = {1, 2}
    fleets = index(subjects)
    assert fleets.fleet(1) is fleets.fleet(2)
    assert fleets.fleet(3) is not fleets.fleet(1)
    assert fleets.fleet(4).soonest() is None


def test_time_to_spare_ends_with_the_load_and_comes_back() -> None:
    fleet = index(workers(2)).fleet(1)
    assert fleet.spare(0)
    fleet.charge(0, round(2 * SPARE_LOAD * LOAD_WINDOW_NS) + 1)
    assert not fleet.spare(0)
    assert fleet.spare(LOAD_WINDOW_NS)


def test_work_ahead_is_all_that_is_as_urgent_and_less_of_what_is_not() -> None:
    fleet = index(workers(1)).fleet(1)
    tight, middle, loose = work_class(10 * MS), work_class(20 * MS), work_class(80 * MS)
    assert (middle - tight, loose - middle) == (1, 2)
    fleet.add_work(tight, 100)
    fleet.add_work(loose, 100)
    assert fleet.work_ns(loose) == 200
    assert fleet.work_ns(tight) == pytest.approx(100 + 100 / 8)
    fleet.remove_work(tight, 100)
    assert fleet.work_ns(tight) == pytest.approx(100 / 8)
