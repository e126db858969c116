"""Which models sit on which devices: what holds for any devices and models, and what single cases should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from erg_server.scheduling.placement_plan import (
    MOVE_GAIN,
    ModelDemand,
    PlacementPlan,
    Site,
    plan_placement,
)
from hypothesis import given
from hypothesis import strategies as st

CPUS = tuple(Site(name=f"cpu{number}", host="cpu", pool="cpu") for number in range(3))
GPUS = tuple(Site(name=f"gpu{number}", host=f"gpu{number}", pool=f"gpu{number}") for number in range(2))
SHARES = tuple(Site(name=f"gpu2.mps{number}", host="gpu2", pool="gpu2") for number in range(2))
ALL = CPUS + GPUS + SHARES
NAMES = tuple(site.name for site in ALL)
HOSTS = ("cpu", "gpu0", "gpu1", "gpu2")


def demand(key: int = 0, memory_bytes: int = 10, *, sites: Sequence[Site] = CPUS, **changes: object) -> ModelDemand:
    made = ModelDemand(key=key, name=f"m{key}", memory_bytes=memory_bytes, sites=frozenset(site.name for site in sites))
    return replace(made, **changes)  # type: ignore[arg-type]


def plan(
    *demands: ModelDemand, sites: Sequence[Site] = CPUS, budget: int | None = None, away: str = ""
) -> dict[int, tuple[str, ...]]:
    budgets = {} if budget is None else dict.fromkeys({site.pool for site in sites}, budget)
    return dict(plan_placement(sites, frozenset(away.split()), budgets, demands).instances)


@st.composite
def demands_of(draw: st.DrawFn) -> list[ModelDemand]:
    made = []
    for key in range(draw(st.integers(0, 8))):
        sites = draw(st.sets(st.sampled_from(NAMES), min_size=1))
        made.append(
            ModelDemand(
                key=key,
                name=f"m{key}",
                memory_bytes=draw(st.integers(0, 60)),
                sites=frozenset(sites),
                counts=draw(st.just({}) | st.dictionaries(st.sampled_from(HOSTS), st.integers(1, 3), min_size=1)),
                load=draw(st.floats(0, 4)),
                pinned=draw(st.booleans()),
                current=tuple(draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=4))),
            )
        )
    return sorted(made, key=lambda each: not each.pinned)


budgets_of = st.dictionaries(st.sampled_from(HOSTS), st.integers(0, 150))
away_of = st.frozensets(st.sampled_from(NAMES), max_size=5)


def again(result: PlacementPlan, demands: Sequence[ModelDemand]) -> list[ModelDemand]:
    return [replace(each, current=result.instances.get(each.key, ())) for each in demands]


def used_bytes(result: PlacementPlan, demands: Sequence[ModelDemand]) -> dict[str, int]:
    pools = {site.name: site.pool for site in ALL}
    used = dict.fromkeys(pools.values(), 0)
    for each in demands:
        for name in result.instances.get(each.key, ()):
            used[pools[name]] += each.memory_bytes
    return used


@given(demands_of(), budgets_of, away_of)
def test_no_pool_ever_holds_more_than_its_budget(
    demands: list[ModelDemand], budgets: dict[str, int], away: frozenset[str]
) -> None:
    result = plan_placement(ALL, away, budgets, demands)
    used = used_bytes(result, demands)
    assert all(used[pool] <= budget for pool, budget in budgets.items())
    for each in demands:
        instances = result.instances.get(each.key, ())
        assert len(set(instances)) == len(instances)
        assert set(instances) <= each.sites
        assert set(instances) & away <= set(each.current), "nothing new goes to a device that is away"
        assert (each.key in result.left_out) == (not instances)
        for host, count in each.counts.items():
            live = [name for name in instances if name not in away]
            assert sum(site.host == host for site in ALL if site.name in live) <= count


@given(demands_of(), budgets_of, away_of)
def test_planning_again_changes_nothing(
    demands: list[ModelDemand], budgets: dict[str, int], away: frozenset[str]
) -> None:
    first = plan_placement(ALL, away, budgets, demands)
    assert plan_placement(ALL, away, budgets, demands) == first
    second = plan_placement(ALL, away, budgets, again(first, demands))
    assert second == first


@given(demands_of(), budgets_of)
def test_a_device_that_goes_moves_only_models_that_were_there(
    demands: list[ModelDemand], budgets: dict[str, int]
) -> None:
    before = plan_placement(ALL, frozenset(), budgets, demands)
    lost = NAMES[0]
    after = plan_placement(ALL, frozenset({lost}), budgets, again(before, demands))
    for each in demands:
        if lost not in before.instances.get(each.key, ()) and each.load < MOVE_GAIN:
            # Under a budget it may have to make room for one that was there.
            free = {name for name in before.instances.get(each.key, ()) if budget_of(name) not in budgets}
            assert set(after.instances.get(each.key, ())) >= free


def budget_of(name: str) -> str:
    """What the memory of a device counts against: all CPU workers share the machine's, shares of a GPU the GPU's."""
    return "cpu" if name.startswith("cpu") else name.partition(".")[0]


def test_without_a_budget_every_device_has_every_model() -> None:
    placed = plan(demand(0), demand(1, load=3.0))
    assert [sorted(placed[key]) for key in range(2)] == [["cpu0", "cpu1", "cpu2"]] * 2


def test_under_a_budget_hot_models_have_as_many_instances_as_their_load_needs_and_idle_ones_one() -> None:
    placed = plan(demand(0, load=1.2), demand(1, load=0.0), budget=100)
    assert (len(placed[0]), len(placed[1])) == (3, 1)


def test_one_instance_of_each_model_comes_before_the_second_of_any() -> None:
    placed = plan(demand(0, load=1.2), demand(1), demand(2), budget=30)
    assert [len(placed[key]) for key in range(3)] == [1, 1, 1]


def test_replicas_go_where_a_model_without_an_instance_needs_their_memory() -> None:
    held = demand(0, load=1.2, current=("cpu0", "cpu1", "cpu2"))
    assert plan(held, budget=30) == {0: ("cpu0", "cpu1", "cpu2")}
    placed = plan(held, demand(1), budget=30)
    assert (len(placed[0]), len(placed[1])) == (2, 1)
    assert "cpu0" in placed[0], "its first instance stays where it is"


def test_load_is_spread_over_the_devices() -> None:
    placed = plan(*(demand(key, load=0.4) for key in range(3)), budget=30)
    assert sorted(name for names in placed.values() for name in names) == ["cpu0", "cpu1", "cpu2"]


def test_models_of_unknown_load_are_spread_by_number() -> None:
    placed = plan(*(demand(key) for key in range(6)), budget=60)
    assert sorted(name for names in placed.values() for name in names) == sorted(["cpu0", "cpu1", "cpu2"] * 2)


def test_a_model_moves_only_where_that_takes_much_off_the_busiest_device() -> None:
    crowded = [demand(key, load=0.45, current=("cpu0",)) for key in range(2)]
    assert len(set(plan(*crowded, budget=20).values())) == 2
    quiet = [demand(key, load=0.1, current=("cpu0",)) for key in range(2)]
    assert set(plan(*quiet, budget=20).values()) == {("cpu0",)}


def test_counts_are_kept_on_each_device() -> None:
    shared = demand(0, sites=SHARES + GPUS, counts={"gpu2": 2, "gpu0": 1})
    assert set(plan(shared, sites=SHARES + GPUS)[0]) == {"gpu2.mps0", "gpu2.mps1", "gpu0"}


def test_a_model_whose_only_device_is_away_goes_elsewhere_in_the_memory_it_leaves() -> None:
    counted = demand(0, counts={"cpu": 1}, current=("cpu0",))
    assert plan(counted, budget=10, away="cpu0") == {0: ("cpu1",)}
    # With an instance on every device that is left there is nothing to do but wait.
    assert plan(demand(0, current=("cpu0", "cpu1", "cpu2")), away="cpu0") == {0: ("cpu1", "cpu2", "cpu0")}


def test_a_model_without_an_instance_comes_before_the_memory_of_instances_that_are_away() -> None:
    held = demand(0, load=0.0, current=("cpu0", "cpu1"))
    assert plan(held, budget=20, away="cpu0") == {0: ("cpu1", "cpu0")}
    assert plan(held, demand(1), budget=20, away="cpu0") == {0: ("cpu1",), 1: ("cpu2",)}


def test_a_hot_model_gets_an_instance_elsewhere_while_a_device_is_away() -> None:
    hot = demand(0, load=0.9, current=("cpu0", "cpu1"))
    assert set(plan(hot, budget=20, away="cpu0")[0]) == {"cpu1", "cpu2"}


def test_a_model_that_fits_nowhere_is_left_out_and_smaller_ones_after_it_are_not() -> None:
    result = plan_placement(GPUS, frozenset(), {"gpu0": 10, "gpu1": 15}, [
        demand(0, 20, sites=GPUS), demand(1, 15, sites=GPUS), demand(2, 10, sites=GPUS),
    ])  # fmt: skip
    assert result.left_out == (0,)
    assert dict(result.instances) == {1: ("gpu1",), 2: ("gpu0",)}
