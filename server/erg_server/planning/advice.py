"""What to buy or to drop where a plan fails: found by simulating it, within bounds, for each kind of device alone.

Models of one kind of device do not meet those of another, so each kind is searched by itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from erg_server.devices.device import DeviceKind
from erg_server.planning.catalogue import PlannedModel
from erg_server.planning.forecast import Forecast
from erg_server.planning.scenario import Scenario

MOST_FURTHER = 64
"""Devices that are tried beyond those there are."""
MOST_CANDIDATES = 16
"""Models whose removal is tried, those with most to do first."""
MOST_TRIALS = 48
"""Simulations after which no larger set of models to remove is looked for."""

Simulate = Callable[[Scenario, str], Forecast]
"""Runs a scenario; the text says to people what is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KindAdvice:
    """What helps on one kind of device.

    `hopeless` are the models whose objective is less than a request takes alone: neither more devices nor fewer models
    help them, and `further` is for the others. `further` is the smallest number of devices more, 0 where it is for
    hopeless models alone, None where not even `MOST_FURTHER` do. `removals` are sets of models each of which is enough
    to remove, () where no set was found and None where there is one model alone. `budget_bytes` is the memory budget
    that would hold one instance of every model, None where memory is not what lacks. `counted` are the unmet models
    that the counts of their instance groups keep off further devices of a host.
    """

    kind: DeviceKind
    unmet: tuple[str, ...]
    hopeless: tuple[str, ...]
    further: int | None
    removals: tuple[tuple[str, ...], ...] | None
    budget_bytes: int | None = None
    counted: tuple[str, ...] = ()


def advise(scenario: Scenario, found: Forecast, simulate: Simulate) -> tuple[KindAdvice, ...]:
    """What would help, for each kind of device on which a model fails; nothing where all is met."""
    unmet = {each.model.name: each.model for each in found.models if each.unmet}
    kinds = dict.fromkeys(scenario.kind(model) for model in unmet.values())
    return tuple(_advise_kind(scenario.only(kind), kind, found, simulate) for kind in kinds)


def _advise_kind(scenario: Scenario, kind: DeviceKind, found: Forecast, simulate: Simulate) -> KindAdvice:
    names = {model.name for model in scenario.models}
    unmet = tuple(name for name in found.unmet if name in names)
    hopeless = tuple(model.name for model in scenario.models if model.name in unmet and _is_hopeless(model))
    curable = [name for name in unmet if name not in hopeless]
    lacking = [each.model.name for each in found.models if each.status == "no memory" and each.model.name in names]
    # Further CPU workers share the memory that there is; further GPUs bring their own.
    memory_bound = bool(lacking) and kind == "cpu"
    further: int | None = 0
    if curable:
        further = None if memory_bound else _fewest_further(scenario, kind, hopeless, simulate)
    return KindAdvice(
        kind=kind,
        unmet=unmet,
        hopeless=hopeless,
        further=further,
        removals=_removals(scenario, hopeless, simulate) if len(names) > 1 else None,
        budget_bytes=_budget_bytes(scenario, kind) if lacking else None,
        counted=tuple(
            model.name
            for model in scenario.models
            if model.name in curable and kind == "cpu" and scenario.limits(model).counts
        ),
    )


def _is_hopeless(model: PlannedModel) -> bool:
    """Whether even a request of its own on an idle device is late more often than its objective allows."""
    if model.traffic is None or model.times is None or not model.spec.objective_ns:
        return False
    return model.times.high_ns(model.traffic.most_rows) > model.spec.objective_ns


def _fewest_further(scenario: Scenario, kind: DeviceKind, hopeless: Collection[str], simulate: Simulate) -> int | None:
    """The fewest devices more with which no other model is unmet, by doubling and bisection."""

    def enough(count: int) -> bool:
        outcome = simulate(scenario.with_devices(kind, count), f"{count} more of kind {kind}")
        return set(outcome.unmet) <= set(hopeless)

    # Below this the devices would be busy for longer than there is time, so nothing needs to be simulated.
    needed = math.fsum(scenario.load(model) for model in scenario.models if model.name not in hopeless)
    low = max(1, math.floor(needed * 0.98) - len(scenario.devices))
    failed, count = low - 1, low
    while count <= MOST_FURTHER and not enough(count):
        failed, count = count, min(2 * count, MOST_FURTHER) if count < MOST_FURTHER else MOST_FURTHER + 1
    if count > MOST_FURTHER:
        return None
    while count - failed > 1:
        middle = (failed + count) // 2
        if enough(middle):
            count = middle
        else:
            failed = middle
    return count


def _removals(scenario: Scenario, hopeless: Sequence[str], simulate: Simulate) -> tuple[tuple[str, ...], ...]:
    """Every model that is enough to remove alone, else one set, made by removing what helps the most others each time.

    Those without hope are part of any set.
    """
    trials = 0

    def unmet_without(names: Sequence[str]) -> int:
        nonlocal trials
        trials += 1
        return len(simulate(scenario.without(names), f"without {', '.join(names)}").unmet)

    removed = tuple(hopeless)
    names = _by_size(scenario)
    if removed and len(removed) < len(names) and not unmet_without(removed):
        return (removed,)
    while trials < MOST_TRIALS:
        others = [name for name in names if name not in removed][:MOST_CANDIDATES]
        if len(others) < 2:
            break  # Nothing would be left to serve.
        left = {name: unmet_without((*removed, name)) for name in others}
        enough = [name for name in others if not left[name]]
        if enough:
            # Of single models the reader may choose; of larger sets one is enough to read.
            single = len(removed) == len(hopeless)
            return tuple((*removed, name) for name in (enough if single else enough[:1]))
        # Of equal ones the last, which has least to do.
        removed = (*removed, min(reversed(others), key=left.__getitem__))
    return ()


def _by_size(scenario: Scenario) -> list[str]:
    """The names of the models, those with most to do first, and of idle ones those of most memory."""
    loads: dict[str, float] = {}
    sizes: Counter[str] = Counter()
    for model in scenario.models:
        loads[model.name] = loads.get(model.name, 0.0) + scenario.load(model)
        sizes[model.name] += model.memory_bytes
    return sorted(loads, key=lambda name: (-loads[name], -sizes[name], name))


def _budget_bytes(scenario: Scenario, kind: DeviceKind) -> int:
    """The budget with which every model has an instance: all of them on the machine, or the largest on a GPU."""
    sizes = [model.memory_bytes for model in scenario.models]
    return sum(sizes) if kind == "cpu" else max(sizes)
