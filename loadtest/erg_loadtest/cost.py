"""Money from measured CPU time; never from an estimate, and never without a price that somebody gave."""

from __future__ import annotations

import math
from dataclasses import dataclass

from erg_loadtest.errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuPrice:
    """What one CPU costs for an hour, in the currency its payer uses."""

    per_cpu_hour: float
    currency: str = "USD"

    def __post_init__(self) -> None:
        if not 0 <= self.per_cpu_hour < math.inf:
            raise PlanError(f"the price of a CPU hour cannot be {self.per_cpu_hour}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of 1,000 inferences: the CPU time that the server burned on them, at the price given.

    It leaves out what idle capacity costs; that depends on how full the machine is kept, not on this run.
    """

    cpu_seconds_per_1000: float
    per_1000: float
    currency: str
    source: str
    """How the CPU time was measured."""


def cost_of(*, cpu_seconds: float, inferences: int, price: CpuPrice, source: str) -> Cost | None:
    """The cost of 1,000 inferences, or None when none succeeded and no figure would be true."""
    if inferences <= 0:
        return None
    cpu_seconds_per_1000 = cpu_seconds / inferences * 1000
    return Cost(
        cpu_seconds_per_1000=cpu_seconds_per_1000,
        per_1000=cpu_seconds_per_1000 * price.per_cpu_hour / 3600,
        currency=price.currency,
        source=source,
    )
