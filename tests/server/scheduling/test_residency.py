"""What is loaded and unloaded when models are asked for, memory is short and devices come and go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from erg_server.errors import ResourceExhaustedError
from erg_server.scheduling import eviction_choice
from erg_server.scheduling.instance_groups import InstanceLimits
from erg_server.scheduling.placement_plan import PlacementPlan, Site, plan_placement
from erg_server.scheduling.residency import Orders, Residency
from erg_server.scheduling.resident_model import MIN_STAY_NS, InstanceState
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

CPUS = tuple(Site(name=f"cpu{number}", host="cpu", pool="cpu") for number in range(3))
GPU = Site(name="gpu0", host="gpu0", pool="gpu0")
CPU_NAMES = tuple(site.name for site in CPUS)
READY, LOADING = InstanceState.READY, InstanceState.LOADING


class Case:
    """A residency whose orders are carried out when the test says so."""

    def __init__(self, budget: int | None = None, sites: tuple[Site, ...] = CPUS) -> None:
        self.residency = Residency(sites, {} if budget is None else {"cpu": budget, "gpu0": budget})
        self.now_ns = 0
        self.busy: set[int] = set()
        self.last = Orders()

    def add(
        self,
        *keys: int,
        size: int = 10,
        pinned: bool = False,
        sites: tuple[str, ...] = CPU_NAMES,
        counts: Mapping[str, int] | None = None,
    ) -> None:
        for key in keys:
            limits = InstanceLimits(devices=sites, counts=counts or {})
            self.residency.add(key, f"m{key}", limits, memory_bytes=size, pinned=pinned)

    def poll(self) -> Orders:
        self.last = self.residency.poll(self.now_ns, self.busy)
        return self.last

    def want(self, key: int) -> Orders:
        self.now_ns += 1
        self.residency.want(key, self.now_ns)
        return self.poll()

    def carry_out(self, orders: Orders, *, grown: int = 0, reload_s: float = 0.0) -> None:
        for key, site in orders.unloads:
            self.residency.gone(key, site)
        for key, site in orders.loads:
            self.residency.loaded(key, site, memory_bytes=grown, reload_s=reload_s, now_ns=self.now_ns)

    def settle(self) -> None:
        while (orders := self.poll()).loads or orders.unloads:
            self.carry_out(orders)

    def bring(self, *keys: int) -> None:
        for key in keys:
            self.carry_out(self.want(key))
            self.settle()

    def resident(self) -> set[int]:
        return {key for key in range(10) if self.residency.ready(key)}


def test_without_a_budget_a_model_goes_to_every_device() -> None:
    case = Case()
    case.add(1)
    assert case.want(1).loads == ((1, "cpu0"), (1, "cpu1"), (1, "cpu2"))


def test_a_third_model_under_a_budget_of_two_takes_the_place_of_the_one_missed_least() -> None:
    case = Case(budget=20)
    case.add(1, 2, 3)
    case.bring(1, 2)
    case.residency.used(1)
    orders = case.want(3)
    assert [key for key, _ in orders.unloads] == [1]
    assert orders.loads == (), "its memory is not free yet"
    case.carry_out(orders)
    assert [key for key, _ in case.poll().loads] == [3]


def test_one_plan_is_enough_where_nobody_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs in the event loop, with every load and every ten seconds, and looks at every model."""
    case = Case(budget=30 * 10)
    keys = range(1, 31)
    case.add(*keys)
    case.bring(*keys)
    plans = 0

    def counted(*arguments: Any) -> PlacementPlan:
        nonlocal plans
        plans += 1
        return plan_placement(*arguments)

    monkeypatch.setattr(eviction_choice, "plan_placement", counted)
    case.poll()
    assert plans == 1


def test_what_is_dear_to_reload_stays() -> None:
    case = Case(budget=20)
    case.add(1, 2, 3)
    case.carry_out(case.want(1), reload_s=9.0)
    case.carry_out(case.want(2), reload_s=1.0)
    assert [key for key, _ in case.want(3).unloads] == [2]


def test_only_as_much_is_evicted_as_is_needed() -> None:
    case = Case(budget=40)
    case.add(1, 2)
    case.add(3, size=20)
    case.add(4, size=20)
    case.bring(1, 2, 3)
    # The two small ones are worth less for nothing: they do not have to go once the large one does.
    case.residency.used(3)
    assert {key for key, _ in case.want(4).unloads} in ({3}, {1, 2})


def test_a_pinned_model_is_never_evicted_and_what_does_not_fit_beside_it_is_told() -> None:
    case = Case(budget=20)
    case.add(1, 2, pinned=True)
    case.add(3)
    case.bring(1, 2)
    orders = case.want(3)
    assert orders.unloads == ()
    [(key, error)] = orders.refused
    assert key == 3
    assert isinstance(error, ResourceExhaustedError)
    assert "'m3' needs 10 bytes" in str(error)
    assert "20 on cpu" in str(error)
    assert case.poll().refused == (), "it is told once"


def test_a_model_that_is_being_warmed_up_is_waited_for() -> None:
    case = Case(budget=10)
    case.add(1, 2)
    case.residency.hold(1)
    case.bring(1)
    assert case.want(2) == Orders()
    case.residency.release(1)
    assert case.poll().unloads == ((1, "cpu0"),)


def test_a_busy_model_has_its_turn_before_it_goes() -> None:
    case = Case(budget=10)
    case.add(1, 2)
    case.bring(1)
    case.busy = {1}
    began_ns = case.now_ns
    orders = case.want(2)
    assert orders.unloads == ()
    assert orders.look_again_ns == began_ns + MIN_STAY_NS
    case.now_ns = began_ns + MIN_STAY_NS
    assert case.poll().unloads == ((1, "cpu0"),)


def test_the_turn_of_a_model_that_takes_long_to_load_is_as_long() -> None:
    case = Case(budget=10)
    case.add(1, 2)
    case.carry_out(case.want(1), reload_s=3.0)
    case.busy = {1}
    began_ns = case.now_ns
    assert case.want(2).look_again_ns == began_ns + 3 * 10**9


def test_an_idle_model_goes_before_a_busy_one() -> None:
    case = Case(budget=20)
    case.add(1, 2, 3)
    case.carry_out(case.want(1), reload_s=9.0)
    case.carry_out(case.want(2), reload_s=0.0)
    case.now_ns += 10**11
    case.busy = {2}
    assert [key for key, _ in case.want(3).unloads] == [1]


def test_those_behind_one_that_waits_do_not_take_what_it_waits_for() -> None:
    case = Case(budget=20)
    case.add(1, 2)
    case.add(3, size=20)
    case.add(4)
    case.bring(1, 2)
    case.busy = {1, 2}
    case.want(3)
    assert case.want(4).unloads == ()
    case.now_ns += 10**10
    orders = case.poll()
    assert {key for key, _ in orders.unloads} == {1, 2}
    case.carry_out(orders)
    assert [key for key, _ in case.poll().loads] == [3]


def test_more_instances_of_a_hot_model_give_way_to_the_first_of_another() -> None:
    case = Case(budget=30)
    case.add(1, 2)
    case.bring(1)
    case.residency.set_load(1, 1.4)
    case.settle()
    assert len(case.residency.state(1)) == 3
    orders = case.want(2)
    assert len(orders.unloads) == 1
    case.carry_out(orders)
    case.settle()
    assert case.resident() == {1, 2}


def test_a_model_that_proves_too_large_is_unloaded_and_told() -> None:
    case = Case(budget=15)
    case.add(1)
    case.carry_out(case.want(1), grown=16)
    orders = case.poll()
    assert orders.unloads == ((1, "cpu0"),)
    assert [key for key, _ in orders.refused] == [1]


def test_models_that_prove_larger_than_thought_make_others_go() -> None:
    case = Case(budget=25)
    case.add(1, 2)
    case.bring(1)
    case.carry_out(case.want(2), grown=16)
    orders = case.poll()
    assert len(orders.unloads) == 1
    assert orders.refused == ()


def test_a_device_that_is_lost_is_planned_around_and_used_again() -> None:
    case = Case(budget=60)
    case.add(1, counts={"cpu": 1})
    case.bring(1)
    assert case.residency.state(1) == {"cpu0": READY}
    case.residency.site_away("cpu0")
    assert not case.residency.ready(1)
    case.settle()
    assert case.residency.state(1) == {"cpu1": READY}
    case.residency.site_back("cpu0", {})
    case.add(2)
    case.residency.set_load(2, 1.4)
    case.bring(2)
    assert "cpu0" in case.residency.state(2)


def test_what_a_device_has_again_when_it_is_back_is_not_loaded_anew() -> None:
    case = Case()
    case.add(1, 2)
    case.bring(1, 2)
    case.residency.site_away("cpu0")
    assert case.poll() == Orders(), "the worker loads again what it had"
    case.residency.site_back("cpu0", {1})
    assert case.poll().loads == ((2, "cpu0"),)


def test_who_waited_for_a_device_that_is_back_waits_no_more() -> None:
    case = Case(budget=10, sites=(GPU,))
    case.add(1, 2, sites=("gpu0",))
    case.bring(1)
    case.residency.site_away("gpu0")
    case.want(1)
    case.residency.site_back("gpu0", {1})
    case.bring(2)
    assert case.poll() == Orders(), "nobody asks for the first one, which gave way"


def test_with_no_device_up_a_model_waits_and_is_not_refused() -> None:
    case = Case(budget=10, sites=(GPU,))
    case.add(1, sites=("gpu0",))
    case.residency.site_away("gpu0")
    assert case.want(1) == Orders()
    case.residency.site_back("gpu0", {})
    assert case.poll().loads == ((1, "gpu0"),)


def test_where_a_load_failed_it_is_tried_again_only_when_somebody_asks_again() -> None:
    case = Case()
    case.add(1)
    orders = case.want(1)
    case.residency.failed(1, "cpu0")
    case.carry_out(Orders(loads=orders.loads[1:]))
    assert case.poll() == Orders()
    assert case.residency.settled(1)
    case.residency.failed(1, "cpu1")
    case.residency.failed(1, "cpu2")
    assert case.poll() == Orders(), "nobody asks for it"
    assert len(case.want(1).loads) == 3


def test_a_version_that_is_retired_keeps_its_memory_until_it_is_unloaded() -> None:
    case = Case(budget=10)
    case.add(1, 2)
    case.bring(1)
    assert case.residency.retire(1) == ("cpu0",)
    assert case.want(2).loads == ()
    case.residency.gone(1, "cpu0")
    assert case.poll().loads == ((2, "cpu0"),)


class ResidencyMachine(RuleBasedStateMachine):
    """Any order of events: memory is never overdrawn, what may not go stays, and who waits is served in the end."""

    keys = st.integers(0, 5)

    @initialize(
        sizes=st.lists(st.integers(1, 12), min_size=6, max_size=6),
        pinned=st.sets(st.integers(0, 5), max_size=2),
        counted=st.sets(st.integers(0, 5), max_size=2),
    )
    def start(self, sizes: list[int], pinned: set[int], counted: set[int]) -> None:
        self.case = Case(budget=25)
        self.sizes = sizes
        self.pinned = pinned
        for key, size in enumerate(sizes):
            counts = {"cpu": 1} if key in counted else None
            self.case.add(key, size=size, pinned=key in pinned, counts=counts)
        self.pending: list[tuple[str, int, str]] = []
        self.waiting: set[int] = set()
        self.held: set[int] = set()
        self.away: set[str] = set()

    def step(self) -> None:
        # Who waited for what a device has again is answered.
        self.waiting -= {key for key in self.waiting if self.case.residency.ready(key)}
        orders = self.case.poll()
        for key, site in orders.unloads:
            gave_way = len(self.case.residency.state(key)) > 1 or site in self.away
            assert gave_way or key not in self.pinned | self.held
            self.pending.append(("unload", key, site))
        for key, site in orders.loads:
            assert site not in self.away
            self.pending.append(("load", key, site))
        self.waiting -= {key for key, _ in orders.refused}

    @rule(key=keys, busy=st.booleans())
    def ask(self, key: int, busy: bool) -> None:
        self.case.busy ^= {key} if busy else set()
        self.case.residency.used(key)
        if not self.case.residency.ready(key):
            self.waiting.add(key)
            self.case.residency.want(key, self.case.now_ns)
        self.step()

    @rule(data=st.data(), fails=st.booleans())
    def finish(self, data: st.DataObject, fails: bool) -> None:
        if self.pending:
            self.end(data.draw(st.integers(0, len(self.pending) - 1)), fails=fails)
            self.step()

    def end(self, index: int, *, fails: bool) -> None:
        kind, key, site = self.pending.pop(index)
        if kind == "unload" or fails or site in self.away:
            self.case.residency.gone(key, site)
            return
        self.case.residency.loaded(key, site, memory_bytes=0, reload_s=0.1, now_ns=self.case.now_ns)
        self.waiting.discard(key)

    @rule(key=keys)
    def hold(self, key: int) -> None:
        if key not in self.held:
            self.held.add(key)
            self.case.residency.hold(key)

    @rule(key=keys)
    def release(self, key: int) -> None:
        if key in self.held:
            self.held.discard(key)
            self.case.residency.release(key)
            self.step()

    @rule(site=st.sampled_from(CPU_NAMES))
    def lose_or_find(self, site: str) -> None:
        if site in self.away:
            self.away.discard(site)
            kept = {key for key in range(6) if self.case.residency.state(key).get(site) is READY}
            self.case.residency.site_back(site, kept)
        else:
            self.away.add(site)
            self.case.residency.site_away(site)
        self.step()

    @rule(ms=st.integers(1, 200), load=st.floats(0, 3), key=keys)
    def pass_time(self, ms: int, load: float, key: int) -> None:
        self.case.now_ns += ms * 10**6
        self.case.residency.set_load(key, load)
        self.step()

    @invariant()
    def memory_is_never_overdrawn(self) -> None:
        if hasattr(self, "case"):
            assert self.case.residency.used_bytes()["cpu"] <= 25

    def teardown(self) -> None:
        if not hasattr(self, "case"):
            return
        for site in sorted(self.away):
            self.away.discard(site)
            self.case.residency.site_back(site, range(6))
        for key in self.held:
            self.case.residency.release(key)
        self.held.clear()
        for key in self.waiting:
            self.case.residency.want(key, self.case.now_ns)
        for _ in range(40):
            self.case.now_ns += 10**9
            self.step()
            while self.pending:
                self.end(0, fails=False)
        assert not self.waiting, "somebody waits for ever"


TestResidencyMachine = ResidencyMachine.TestCase
TestResidencyMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, phases=[Phase.generate]
)


@pytest.mark.parametrize("key", [7])
def test_events_of_a_version_that_is_gone_change_nothing(key: int) -> None:
    case = Case(budget=10)
    case.residency.gone(key, "cpu0")
    case.residency.loaded(key, "cpu0", memory_bytes=1, reload_s=0.0, now_ns=0)
    case.residency.release(key)
    case.residency.used(key)
    case.residency.set_load(key, 1.0)
    case.residency.want(key, 0)
    assert case.residency.retire(key) == ()
    assert case.poll() == Orders()
