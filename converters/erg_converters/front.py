"""The front of accuracy against cost: the variants that no other beats in both. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from erg_server.repository.manifest import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A variant by what it loses (0 for the source) and what it costs (1 for the source; less is cheaper)."""

    name: str
    drop: float
    cost: float


def cost_ratios(measurements: Sequence[Measurement]) -> dict[str, float]:
    """CPU time over the source's by variant: the geometric mean over the measured shapes.

    Ratios multiply, so that their geometric mean is the one that does not depend on which of the two is the unit.
    """
    logs: dict[str, list[float]] = {}
    for each in measurements:
        if each.cpu_ratio:
            logs.setdefault(each.variant, []).append(-math.log(each.cpu_ratio))
    return {name: math.exp(sum(values) / len(values)) for name, values in logs.items()}


def points(drops: Mapping[str, float], costs: Mapping[str, float]) -> list[Point]:
    """The variants that have both, cheapest first."""
    both = [Point(name=name, drop=drops[name], cost=costs[name]) for name in drops if name in costs]
    return sorted(both, key=lambda point: (point.cost, point.drop))


def front(candidates: Sequence[Point]) -> tuple[str, ...]:
    """Names of those on the front, cheapest first."""
    names: list[str] = []
    least = math.inf
    for point in sorted(candidates, key=lambda each: (each.cost, each.drop)):
        if point.drop < least:
            names.append(point.name)
            least = point.drop
    return tuple(names)
