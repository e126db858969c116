"""Where a server would have a scenario's models, by the placement that it uses itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from erg_server.planning.scenario import Scenario
from erg_server.scheduling.placement_plan import ModelDemand, PlacementPlan, Site, plan_placement

Placement = tuple[tuple[str, ...], ...]
"""The devices of each model, in the scenario's order."""


def place(scenario: Scenario, loads: Sequence[float], current: Placement | None = None) -> Placement:
    """The devices that each model is on under these loads, in device-seconds a second; () where it has no room.

    Where memory is short the pinned have it first and then those that have most to do, which a server keeps because
    they are used; `current` is where they are already.
    """
    demands = [
        ModelDemand(
            key=number,
            name=model.name,
            memory_bytes=model.memory_bytes,
            sites=frozenset((limits := scenario.limits(model)).devices),
            counts=limits.counts,
            load=loads[number],
            pinned=model.spec.pinned,
            current=current[number] if current is not None else (),
        )
        for number, model in enumerate(scenario.models)
    ]
    demands.sort(key=lambda demand: (not demand.pinned, -demand.load, demand.key))
    plan: PlacementPlan = plan_placement(sites(scenario), frozenset(), scenario.budgets, demands)
    return tuple(plan.instances.get(number, ()) for number in range(len(scenario.models)))


def used_bytes(scenario: Scenario, placement: Placement) -> Mapping[str, int]:
    """Memory that the models placed take from each pool."""
    pools = {site.name: site.pool for site in sites(scenario)}
    used = dict.fromkeys(pools.values(), 0)
    for model, devices in zip(scenario.models, placement, strict=True):
        for name in devices:
            used[pools[name]] += model.memory_bytes
    return used


def sites(scenario: Scenario) -> list[Site]:
    """The devices as placement sees them."""
    return [Site(name=device.name, host=device.host, pool=device.memory_pool) for device in scenario.devices]
