"""The two indices that Erg was founded on, made dimensionless. Pure.

Training efficiency is model performance ÷ training time, and inference cost is (power + memory + inference time) ÷
model performance. Watts, bytes and seconds cannot be added, so each part is divided by that of a named baseline:

    training efficiency = (performance / performance_0) / (training time / training time_0)
    inference cost      = Σ weight · (part / part_0) / Σ weight / (performance / performance_0)

The baseline's own indices are 1. Of the first more is better, of the second less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from erg_loadtest.errors import PlanError
from erg_loadtest.figure import Source

Part = Literal["power", "memory", "time"]
PARTS: tuple[Part, ...] = ("power", "memory", "time")
UNITS: Mapping[Part, str] = {"power": "W", "memory": "bytes", "time": "µs"}
_MISSING = "missing: "
EQUAL_WEIGHTS: Mapping[Part, float] = {"power": 1.0, "memory": 1.0, "time": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the indices are made of; None where it is not known.

    `power` is the mean watts that the counters saw during the run, `memory` the server's bytes at its end, `time` the
    mean microseconds from due to answered.
    """

    name: str
    power: float | None = None
    power_source: Source = "measured"
    memory: float | None = None
    time: float | None = None
    performance: float | None = None
    training_s: float | None = None

    def part(self, name: Part) -> float | None:
        """One of the summands of inference cost."""
        return {"power": self.power, "memory": self.memory, "time": self.time}[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Indices:
    """One run's indices against a baseline's; a sentence stands for one that lacks a part."""

    baseline: str
    weights: Mapping[Part, float]
    inference_cost: float | str
    training_efficiency: float | str
    ratios: Mapping[Part, float]
    """Each known part over the baseline's."""
    source: Source
    """Modelled where power is, on either side, and weighs anything."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def indices(parts: Parts, baseline: Parts, weights: Mapping[Part, float] = EQUAL_WEIGHTS) -> Indices:
    """Both indices of `parts`, whatever can be said of them."""
    used = [name for name in PARTS if weights[name] > 0]
    missing = [_missing(name, parts, baseline) for name in used]
    missing.append(_missing("performance", parts, baseline))
    ratios: dict[Part, float] = {}
    for name in PARTS:
        above, below = parts.part(name), baseline.part(name)
        if above is not None and below:
            ratios[name] = above / below
    said = [text for text in missing if text]
    modelled = weights["power"] > 0 and "modelled" in {parts.power_source, baseline.power_source}
    return Indices(
        baseline=baseline.name,
        weights=dict(weights),
        inference_cost=_MISSING + ", ".join(said) if said else _inference_cost(parts, baseline, weights, ratios),
        training_efficiency=_training_efficiency(parts, baseline),
        ratios=ratios,
        source="modelled" if modelled else "measured",
    )


def parse_weights(text: str) -> dict[Part, float]:
    """`power=1,memory=2,time=1`; a part that is left out weighs nothing."""
    found: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    for entry in text.split(","):
        name, _, value = entry.partition("=")
        part = next((each for each in PARTS if each == name.strip()), None)
        try:
            weight = float(value)
        except ValueError:
            weight = math.nan
        if part is None or not 0 <= weight < math.inf:
            raise PlanError(f"--weights '{text}': write for instance power=1,memory=1,time=1, none below zero")
        found[part] = weight
    if not sum(found.values()):
        raise PlanError(f"--weights '{text}': at least one part must weigh something")
    return found


def _inference_cost(
    parts: Parts, baseline: Parts, weights: Mapping[Part, float], ratios: Mapping[Part, float]
) -> float:
    total = sum(weights[name] * ratios[name] for name in ratios if weights[name] > 0)
    return total / sum(weights.values()) / ((parts.performance or 0.0) / (baseline.performance or 1.0))


def _training_efficiency(parts: Parts, baseline: Parts) -> float | str:
    said = [text for name in ("performance", "training_s") if (text := _missing(name, parts, baseline))]
    if said:
        return _MISSING + ", ".join(said)
    performance = (parts.performance or 0.0) / (baseline.performance or 1.0)
    return performance / ((parts.training_s or 1.0) / (baseline.training_s or 1.0))


_HOW: Mapping[str, str] = {
    "power": "a power source of the server, read by --metrics-url",
    "memory": "--metrics-url or --server-pid",
    "time": "answers",
    "performance": "--performance or --manifest",
    "training time": "--training-time",
}


def hints(found: Indices) -> str:
    """How to bring what the indices lack, "" where they lack nothing."""
    texts = [text for text in (found.inference_cost, found.training_efficiency) if isinstance(text, str)]
    names = {part.removeprefix("the baseline's ") for text in texts for part in text.removeprefix(_MISSING).split(", ")}
    lacking = [f"{name} by {how}" for name, how in _HOW.items() if name in names]
    return f"What is missing comes from: {'; '.join(lacking)}." if lacking else ""


def _missing(name: str, parts: Parts, baseline: Parts) -> str:
    plain = "training time" if name == "training_s" else name
    if not getattr(parts, name):
        return plain
    return "" if getattr(baseline, name) else f"the baseline's {plain}"
