"""Which models sit on which devices. Pure: sites, budgets and demands in, a plan out; the same for the same.

A device is a *site*, named as its worker is. Memory belongs to a *pool*, which several sites may share: the cores of a
machine, or the shares of a GPU. What a model asks for is a *demand*, and where it sits it has an *instance*.

The plan is greedy, with least-loaded placement as in Graham's list scheduling (1966), in passes that never undo what an
earlier one did: every model keeps one instance, models without one get it, instances asked for are kept and then added,
and what is there beyond that stays while its memory is not needed. So planning again from a plan changes nothing, and a
model moves only where a device went away or where moving takes much off the busiest device.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

TARGET_LOAD = 0.5
"""Device-seconds a second that one instance should have at most: with twice that its queue has no bound."""
MOVE_GAIN = 0.2
"""How much a move must take off the busier of two devices, in device-seconds a second, to be worth loading a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A device as placement sees it. `host` is what instance groups count on, `pool` whose memory it uses."""

    name: str
    host: str
    pool: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDemand:
    """What one model needs: `memory_bytes` for each instance, and `load` device-seconds a second in all.

    `sites` may have an instance. `counts` says how many each host gets, where the model's author said so. `current` are
    its instances, in the order of the plan that placed them; those on a site that is away are back when it is. A
    `pinned` model moves only where its device goes away.
    """

    key: int
    name: str
    memory_bytes: int
    sites: frozenset[str]
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    load: float = 0.0
    pinned: bool = False
    current: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """The instances of each model, those on sites that are away included, and the models that have none."""

    instances: Mapping[int, tuple[str, ...]]
    left_out: tuple[int, ...]


def plan_placement(
    sites: Sequence[Site], away: frozenset[str], budgets: Mapping[str, int], demands: Sequence[ModelDemand]
) -> PlacementPlan:
    """Place models on devices.

    Args:
        sites: every device, those that are `away` included: their instances keep their memory for when they are back,
            unless the model is placed elsewhere meanwhile.
        away: sites that can take no model now.
        budgets: most bytes of each pool; a pool that is not named has no bound.
        demands: the models; where memory is short, those named first have it.

    Returns:
        The plan. `left_out` names the models that have no instance at all, in the order of `demands`.
    """
    planner = _Planner(sites, away, budgets)
    for demand in demands:
        planner.keep_first(demand)
    planner.add_first(demands)
    planner.balance(demands)
    while planner.add_first(demands):  # What moved may leave room for one that found none.
        planner.balance(demands)
    by_heat = sorted(demands, key=lambda demand: (-demand.load, demand.key))
    for demand in by_heat:
        planner.keep(demand, planner.wanted(demand))
        planner.keep_resting(demand, len(demand.current))
    while planner.spread(demands):  # What takes the place of one that is away may leave room for others.
        pass
    for demand in by_heat:
        planner.keep(demand, len(demand.current))
    instances = {
        demand.key: tuple(sorted(planner.placed[demand.key], key=lambda name: name in away))
        for demand in demands
        if planner.placed[demand.key]
    }
    left_out = tuple(demand.key for demand in demands if not planner.placed[demand.key])
    return PlacementPlan(MappingProxyType(instances), left_out)


class _Planner:
    """One plan in the making. Memory of a pool is taken by every instance placed and by every one that is away."""

    def __init__(self, sites: Sequence[Site], away: frozenset[str], budgets: Mapping[str, int]) -> None:
        self._sites = {site.name: site for site in sites}
        self._away = away
        self._free = dict(budgets)
        self._loads = dict.fromkeys(self._sites, 0.0)
        self._counts = dict.fromkeys(self._sites, 0)
        self._taken: set[tuple[int, str]] = set()
        self.placed: dict[int, list[str]] = {}

    def live(self, demand: ModelDemand) -> int:
        """Instances on sites that are not away."""
        return sum(name not in self._away for name in self.placed[demand.key])

    def wanted(self, demand: ModelDemand) -> int:
        """Instances the model should have: as counted, or as its load needs; all there can be where memory is free."""
        sites = self._allowed(demand)
        if demand.counts:
            hosts = [self._sites[name].host for name in sites]
            return sum(min(count, hosts.count(host)) for host, count in demand.counts.items())
        if not any(self._sites[name].pool in self._free for name in sites):
            return len(sites)
        return min(len(sites), max(1, math.ceil(demand.load / TARGET_LOAD)))

    def keep_first(self, demand: ModelDemand) -> None:
        """Keep one instance: one that is there, else the memory of one on a site that is away."""
        self.placed[demand.key] = []
        self.keep(demand, 1)
        if not self.placed[demand.key]:
            self.keep_resting(demand, 1)

    def keep_resting(self, demand: ModelDemand, most: int) -> None:
        """Keep the memory of instances on sites that are away, up to `most`; not of those whose place was taken."""
        for name in demand.current:
            if not most:
                return
            if name not in self._away or name not in demand.sites or (demand.key, name) in self._taken:
                continue
            if name not in self.placed[demand.key] and demand.memory_bytes <= self._free_bytes(name):
                self._put(demand, name)
                most -= 1

    def keep(self, demand: ModelDemand, most: int) -> None:
        """Keep instances that are there up to `most`, as memory allows."""
        placed = self.placed[demand.key]
        for name in demand.current:
            if self.live(demand) >= most:
                return
            if name not in placed and self._may(demand, name):
                self._put(demand, name)

    def add(self, demand: ModelDemand) -> bool:
        """One more instance, on the least loaded site that has memory; False where none has.

        It takes the place of one that is away, if there is one.
        """
        placed = self.placed[demand.key]
        resting = next((name for name in placed if name in self._away), "")
        free = [name for name in self._allowed(demand) if name not in placed]
        fitting = [name for name in free if self._may(demand, name, leaving=resting)]
        if not fitting:
            return False
        if resting:
            self._take(demand, resting)
            self._taken.add((demand.key, resting))
        self._put(demand, min(fitting, key=lambda name: (self._loads[name], self._counts[name], name)))
        return True

    def add_first(self, demands: Sequence[ModelDemand]) -> bool:
        """Give an instance to every model that has none, where there is room; whether one got it."""
        added = [self.add(demand) for demand in demands if not self.live(demand)]
        return any(added)

    def balance(self, demands: Sequence[ModelDemand]) -> None:
        """Move first instances off the busiest site while that gains as much as `MOVE_GAIN`.

        Each move lowers the sum of the squares of the loads, so that this ends.
        """
        while (best := self._best_move(demands)) is not None:
            demand, source, target = best
            self._take(demand, source)
            self._put(demand, target)

    def _best_move(self, demands: Sequence[ModelDemand]) -> tuple[ModelDemand, str, str] | None:
        best: tuple[float, ModelDemand, str, str] | None = None
        for demand in demands:
            if demand.pinned or self.live(demand) != 1 or demand.load < MOVE_GAIN:
                continue
            source = next(name for name in self.placed[demand.key] if name not in self._away)
            share = self._share(demand)
            for target in self._allowed(demand):
                if target in self.placed[demand.key] or not self._may(demand, target, leaving=source):
                    continue
                gain = self._loads[source] - max(self._loads[source] - share, self._loads[target] + share)
                if gain >= MOVE_GAIN and (best is None or gain > best[0]):
                    best = gain, demand, source, target
        return best[1:] if best is not None else None

    def spread(self, demands: Sequence[ModelDemand]) -> bool:
        """Add the instances wanted, each to the model whose instances have most to do; whether there were any."""
        by_key = {demand.key: demand for demand in demands if self.placed[demand.key]}
        hottest_first = [self._heat(demand) for demand in by_key.values()]
        heapq.heapify(hottest_first)
        added = False
        while hottest_first:
            demand = by_key[hottest_first[0][1]]
            if self.live(demand) < self.wanted(demand) and self.add(demand):
                heapq.heapreplace(hottest_first, self._heat(demand))
                added = True
            else:
                heapq.heappop(hottest_first)
        return added

    def _heat(self, demand: ModelDemand) -> tuple[float, int]:
        return -demand.load / max(1, self.live(demand)), demand.key

    def _allowed(self, demand: ModelDemand) -> list[str]:
        return [name for name in sorted(demand.sites) if name in self._sites and name not in self._away]

    def _may(self, demand: ModelDemand, name: str, *, leaving: str = "") -> bool:
        """Whether the model may have an instance at a site: allowed there, within its host's count and the memory."""
        site = self._sites.get(name)
        if site is None or name not in demand.sites or name in self._away:
            return False
        others = [other for other in self.placed[demand.key] if other != leaving and other not in self._away]
        if demand.counts:
            there = sum(self._sites[other].host == site.host for other in others)
            if there >= demand.counts.get(site.host, 0):
                return False
        freed = demand.memory_bytes if leaving and self._sites[leaving].pool == site.pool else 0
        return demand.memory_bytes <= self._free_bytes(name) + freed

    def _free_bytes(self, name: str) -> float:
        return self._free.get(self._sites[name].pool, math.inf)

    def _share(self, demand: ModelDemand) -> float:
        return demand.load / max(1, self.wanted(demand))

    def _put(self, demand: ModelDemand, name: str) -> None:
        self._account(demand, name, 1)
        self.placed[demand.key].append(name)

    def _take(self, demand: ModelDemand, name: str) -> None:
        self._account(demand, name, -1)
        self.placed[demand.key].remove(name)

    def _account(self, demand: ModelDemand, name: str, sign: int) -> None:
        pool = self._sites[name].pool
        if pool in self._free:
            self._free[pool] -= sign * demand.memory_bytes
        if name not in self._away:
            self._loads[name] += sign * self._share(demand)
            self._counts[name] += sign
