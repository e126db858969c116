"""Which models are on which workers now, and what must change. Owns that state; loads and unloads nothing itself.

Sans I/O: events go in (`want`, `loaded`, `site_away`, …), `poll` says what to load and to unload next, and time is
passed in. What it orders is carried out by `models.placer`, which tells it how each order ended. A model's memory is
counted from the order to load it until the worker has said that it is unloaded, so that no pool is given more than its
budget.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from erg_server.errors import ErgError
from erg_server.scheduling.eviction import GreedyDualSize
from erg_server.scheduling.eviction_choice import DeviceState, EvictionChoice
from erg_server.scheduling.instance_groups import InstanceLimits
from erg_server.scheduling.placement_plan import Site
from erg_server.scheduling.resident_model import InstanceState, ResidentModel


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do now: (model, worker) pairs, models whose callers are to be told an error, and when to ask again."""

    loads: tuple[tuple[int, str], ...] = ()
    unloads: tuple[tuple[int, str], ...] = ()
    refused: tuple[tuple[int, ErgError], ...] = ()
    look_again_ns: int | None = None


class Residency:
    """The models of a server and where they are. Keys are the handles that front and workers use."""

    def __init__(self, sites: Sequence[Site], budgets: Mapping[str, int]) -> None:
        self._sites = tuple(sites)
        self._pools = {site.name: site.pool for site in sites}
        self._budgets = dict(budgets)
        self._away: set[str] = set()
        self._models: dict[int, ResidentModel] = {}
        self._worth = GreedyDualSize()

    def add(self, key: int, name: str, limits: InstanceLimits, *, memory_bytes: int, pinned: bool) -> None:
        """A version that may be loaded from now on; `memory_bytes` is the best guess until it has been."""
        self._models[key] = ResidentModel(key=key, name=name, limits=limits, pinned=pinned, memory_bytes=memory_bytes)

    def retire(self, key: int) -> tuple[str, ...]:
        """Forget a version when it is unloaded; returns the workers to unload it from, which are then told `gone`."""
        model = self._models.get(key)
        self._worth.forget(key)
        if model is None:
            return ()
        model.retired = True
        model.wanted_ns = None
        model.instances = dict.fromkeys(model.instances, InstanceState.UNLOADING)
        if not model.instances:
            del self._models[key]
        return tuple(model.instances)

    def hold(self, key: int) -> None:
        """Do not evict the model until `release` is called as often."""
        self._models[key].holds += 1

    def release(self, key: int) -> None:
        """Give up one hold; of a model that is gone nothing is held."""
        if (model := self._models.get(key)) is not None:
            model.holds -= 1

    def used(self, key: int) -> None:
        """A request for the model came."""
        model = self._models.get(key)
        if model is not None:
            self._worth.used(key, reload_s=model.reload_s, memory_bytes=model.memory_bytes)

    def want(self, key: int, now_ns: int) -> bool:
        """Somebody waits for the model, which is not ready anywhere; False if somebody did already."""
        model = self._models.get(key)
        if model is None or model.retired or model.wanted_ns is not None:
            return False
        model.wanted_ns = now_ns
        model.barred.clear()
        return True

    def set_load(self, key: int, load: float) -> None:
        """What the model keeps devices busy with, in device-seconds a second."""
        if (model := self._models.get(key)) is not None:
            model.load = load

    def ready(self, key: int) -> bool:
        """Whether a worker that is up has the model."""
        model = self._models.get(key)
        return model is not None and model.ready(self._away)

    def settled(self, key: int) -> bool:
        """Whether the model is ready and none of its instances is still loading."""
        model = self._models.get(key)
        return model is not None and self.ready(key) and not model.sites(InstanceState.LOADING)

    def reachable(self, key: int) -> bool:
        """Whether a device that may have the model is up."""
        model = self._models.get(key)
        return model is not None and any(name not in self._away for name in model.limits.devices)

    def loaded(self, key: int, site: str, *, memory_bytes: int, reload_s: float, now_ns: int) -> None:
        """A load ended well, and took that much memory and time."""
        model = self._models.get(key)
        if model is None or model.retired:
            return
        if not self.ready(key):
            model.ready_ns = now_ns
        model.instances[site] = InstanceState.READY
        model.wanted_ns = None
        # The most that any worker needed: what the first one finds in its caches is missing elsewhere.
        model.memory_bytes = max(model.memory_bytes, memory_bytes)
        model.reload_s = reload_s
        self.used(key)

    def failed(self, key: int, site: str) -> None:
        """A worker does not load the model: it is not tried there again until somebody asks for the model anew."""
        if (model := self._models.get(key)) is not None:
            model.barred.add(site)
            model.wanted_ns = None
        self.gone(key, site)

    def gone(self, key: int, site: str) -> None:
        """An unload ended, or a worker died while it loaded: it does not have the model."""
        if (model := self._models.get(key)) is not None:
            model.instances.pop(site, None)
            if model.retired and not model.instances:
                del self._models[key]

    def site_away(self, site: str) -> None:
        """A worker died; what it had is back when it is."""
        self._away.add(site)

    def site_back(self, site: str, models: Collection[int]) -> None:
        """A worker is up again and has these models."""
        self._away.discard(site)
        for model in self._models.values():
            model.barred.discard(site)
        for key, model in self._models.items():
            if model.instances.get(site) is InstanceState.READY and key not in models:
                del model.instances[site]

    def used_bytes(self) -> dict[str, int]:
        """Memory counted in each pool."""
        used = {site.pool: 0 for site in self._sites}
        for model in self._models.values():
            for name in model.instances:
                used[self._pools[name]] += model.memory_bytes
        return used

    def state(self, key: int) -> Mapping[str, InstanceState]:
        """What each worker does with the model."""
        model = self._models.get(key)
        return {} if model is None else dict(model.instances)

    def poll(self, now_ns: int, busy: Collection[int]) -> Orders:
        """What must be done now for every model that is wanted to be placed, within memory.

        Args:
            now_ns: the time.
            busy: models with requests that wait or run; such a one is evicted only after its turn (`stay_ns`).
        """
        for model in self._models.values():
            if model.wanted_ns is not None and model.ready(self._away):
                model.wanted_ns = None  # The device that has it came back.
        devices = DeviceState(sites=self._sites, away=frozenset(self._away), budgets=self._budgets)
        choice = EvictionChoice(self._models.values(), devices, self._worth, now_ns=now_ns, busy=busy)
        plan = choice.make()
        for key, _ in choice.refused:
            self._models[key].wanted_ns = None
        unloads: list[tuple[int, str]] = []
        loads: list[tuple[int, str]] = []
        used = self.used_bytes()
        for model in choice.members:
            target = plan.instances.get(model.key, ())
            blocked = False
            for name in target:
                if name in model.instances or name in self._away:
                    continue
                pool = self._pools[name]
                if used[pool] + model.memory_bytes > self._budgets.get(pool, math.inf):
                    blocked = True
                    continue
                used[pool] += model.memory_bytes
                model.instances[name] = InstanceState.LOADING
                loads.append((model.key, name))
            unloads += self._surplus(model, target, blocked=blocked)
        for key in {key for key, _ in unloads}:
            if not self._models[key].standing:
                self._worth.evicted(key)
        return Orders(tuple(loads), tuple(unloads), tuple(choice.refused), choice.look_again_ns)

    def _surplus(self, model: ResidentModel, target: tuple[str, ...], *, blocked: bool) -> list[tuple[int, str]]:
        """Instances to unload: one that another takes the place of answers until that is ready, if memory allows."""
        replaced = blocked or not target or any(model.instances.get(name) is InstanceState.READY for name in target)
        found = []
        for name in model.sites(InstanceState.READY):
            if name not in target and (replaced or name in self._away):
                model.instances[name] = InstanceState.UNLOADING
                found.append((model.key, name))
        return found
