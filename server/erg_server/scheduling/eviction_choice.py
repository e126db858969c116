"""Decides which models give way to those that wait. Pure: models, devices and `now` in, a plan out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from erg_server.errors import ErgError, ResourceExhaustedError
from erg_server.scheduling.eviction import GreedyDualSize
from erg_server.scheduling.placement_plan import ModelDemand, PlacementPlan, Site, plan_placement
from erg_server.scheduling.resident_model import ResidentModel


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """Every device, those that are away now, and the most bytes of each memory pool that has a bound."""

    sites: tuple[Site, ...]
    away: frozenset[str]
    budgets: Mapping[str, int]


class EvictionChoice:
    """One decision: what is kept, what is evicted for those that wait, and who is told that it does not fit."""

    def __init__(
        self,
        models: Iterable[ResidentModel],
        devices: DeviceState,
        worth: GreedyDualSize,
        *,
        now_ns: int,
        busy: Collection[int],
    ) -> None:
        self._devices = devices
        self._worth = worth
        self._now_ns = now_ns
        self._busy = busy
        self.refused: list[tuple[int, ErgError]] = []
        self.look_again_ns: int | None = None
        models = [model for model in models if not model.retired and (model.instances or model.wanted_ns is not None)]
        self._pinned = [model for model in models if model.pinned and model.standing]
        waiting = [model for model in models if not model.standing]
        waiting.sort(key=lambda model: (math.inf if model.wanted_ns is None else model.wanted_ns, model.key))
        placed = [model for model in models if model.standing]
        placed.sort(key=lambda model: (model.rank, -worth.worth(model.key), model.key))
        self.members = placed + waiting

    def make(self) -> PlacementPlan:
        """The plan to work towards; sets `refused` and `look_again_ns`."""
        evicted: set[int] = set()
        members = [model for model in self.members if model.standing or model.wanted_ns is not None]
        # Made anew only where somebody goes: a plan looks at every model, and this runs in the event loop.
        plan = self._plan(members, evicted)
        for model in members:
            if model.key not in plan.left_out:
                continue
            if not self._can_ever_fit(model):
                evicted.add(model.key)
                self.refused.append((model.key, self._too_large(model)))
            elif model.wanted_ns is None:
                continue
            elif not self._evict_for(model, members, evicted):
                break  # Those behind it must not take what it waits for.
            plan = self._plan(members, evicted)
        return plan

    def _evict_for(self, model: ResidentModel, members: list[ResidentModel], evicted: set[int]) -> bool:
        """Add to `evicted` what must go for `model` to fit, those missed least first; False where it must wait."""
        ready: list[int] = []
        later_ns: list[int] = []
        for other in members:
            stays = other is model or other.pinned or other.holds or not other.ready(self._devices.away)
            if stays or other.key in evicted:
                continue
            until_ns = other.ready_ns + other.stay_ns
            if other.key in self._busy and until_ns > self._now_ns:
                later_ns.append(until_ns)
            else:
                ready.append(other.key)
        chosen: set[int] = set()
        # One without work first: the other's callers would wait for it to come back.
        order = sorted(self._worth.least_first(ready), key=lambda key: key in self._busy)
        for key in order:
            chosen.add(key)
            if model.key not in self._plan(members, evicted | chosen).left_out:
                break
        else:
            self.look_again_ns = min(later_ns, default=None)
            return False
        for key in [each for each in reversed(order) if each in chosen]:
            if model.key not in self._plan(members, evicted | chosen - {key}).left_out:
                chosen.discard(key)
        evicted |= chosen
        return True

    def _can_ever_fit(self, model: ResidentModel) -> bool:
        """Whether it fits beside the pinned models alone, once every device is up."""
        demands = [self._demand(other) for other in self._pinned if other is not model]
        demands.append(self._demand(model))
        plan = plan_placement(self._devices.sites, frozenset(), self._devices.budgets, demands)
        return model.key not in plan.left_out

    def _too_large(self, model: ResidentModel) -> ErgError:
        pools = {site.pool for site in self._devices.sites if site.name in model.limits.devices}
        bounds = self._devices.budgets
        budgets = ", ".join(f"{bounds[pool]} on {pool}" for pool in sorted(pools & bounds.keys()))
        return ResourceExhaustedError(
            f"model '{model.name}' needs {model.memory_bytes} bytes and --memory-budget leaves it no room beside the "
            f"pinned models (bytes in all: {budgets}); raise the budget, or pin fewer models (erg.pinned)"
        )

    def _plan(self, members: list[ResidentModel], evicted: Collection[int]) -> PlacementPlan:
        demands = [self._demand(model) for model in members if model.key not in evicted]
        return plan_placement(self._devices.sites, self._devices.away, self._devices.budgets, demands)

    def _demand(self, model: ResidentModel) -> ModelDemand:
        return ModelDemand(
            key=model.key,
            name=model.name,
            memory_bytes=model.memory_bytes,
            sites=frozenset(model.limits.devices) - model.barred,
            counts=model.limits.counts,
            load=model.load,
            pinned=model.pinned or model.holds > 0,
            current=model.standing,
        )
