"""MLPerf Inference's scenarios and LoadGen's verdict on a run. Pure: `loadgen` runs them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from erg_loadtest.errors import LoadTestError, PlanError

SERVER_BOUND_MS_BY_MODEL = {
    "resnet50": 15.0,
    "retinanet": 100.0,
    "bert": 130.0,
    "dlrm": 60.0,
    "rnnt": 1000.0,
    "gptj": 20_000.0,
    "sdxl": 20_000.0,
    "stable-diffusion-xl": 20_000.0,
}
"""Server's p99 bounds of MLPerf Inference's own `mlperf.conf`, by the beginning of the model's name."""
DEFAULT_SERVER_BOUND_MS = 10.0
"""What `mlperf.conf` says for any other model."""
MIN_DURATION_S = 600.0
MIN_QUERIES = 100
SAMPLES_PER_MULTI_STREAM_QUERY = 8

_FIGURE = re.compile(r"^(?P<name>[^:]+?)\s*:\s*(?P<value>-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*$")
_CONDITION = re.compile(r"^(?P<name>.+? satisfied)\s*:\s*(?P<value>Yes|NO)\s*$", re.IGNORECASE)
_RESULT = re.compile(r"^Result is\s*:\s*(?P<value>VALID|INVALID)\s*$")


class MlperfScenario(StrEnum):
    """How LoadGen issues queries."""

    SINGLE_STREAM = "single-stream"
    """One sample at a time, the next when it is answered; the figure is the p90 latency."""
    MULTI_STREAM = "multi-stream"
    """Eight samples at a time, the next eight when all are answered; the figure is the p99 latency."""
    SERVER = "server"
    """Poisson arrivals at a rate; the figure is that rate, valid while the p99 latency is within the bound."""
    OFFLINE = "offline"
    """All samples at once; the figure is the throughput."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlperf:
    """One LoadGen run in performance mode."""

    scenario: MlperfScenario
    rate_per_s: float | None = None
    """Server: the target. Offline: what to expect, so that one query fills the minimum duration."""
    latency_bound_ms: float | None = None
    """Server only: the bound of the p99."""
    min_duration_s: float = MIN_DURATION_S
    min_queries: int = MIN_QUERIES
    concurrency: int = 64
    """Offline only: requests kept in flight; the server forms the batches."""
    seed: int = 0

    def __post_init__(self) -> None:
        server = self.scenario is MlperfScenario.SERVER
        if server or self.scenario is MlperfScenario.OFFLINE:
            if self.rate_per_s is None:
                meaning = "the rate to hold" if server else "the rate to expect, which sizes its one query"
                raise PlanError(f"MLPerf's {self.scenario} scenario needs --request-rate: {meaning}")
            if not 0 < self.rate_per_s < math.inf:
                raise PlanError(f"the rate must be positive and finite, not {self.rate_per_s} a second")
        elif self.rate_per_s is not None:
            raise PlanError(f"MLPerf's {self.scenario} scenario has no rate: leave out --request-rate")
        if server and (self.latency_bound_ms is None or not 0 < self.latency_bound_ms < math.inf):
            raise PlanError(f"the latency bound must be positive and finite, not {self.latency_bound_ms} ms")
        if not server and self.latency_bound_ms is not None:
            raise PlanError(f"MLPerf's {self.scenario} scenario has no latency bound; only server has one")
        if not 0 < self.min_duration_s < math.inf:
            raise PlanError(f"the minimum duration must be positive and finite, not {self.min_duration_s} s")
        if self.min_queries < 1 or self.concurrency < 1:
            raise PlanError("the minimum of queries and the requests in flight must be at least 1")

    @property
    def in_flight(self) -> int | None:
        """The most samples on their way at once; None where only the server's speed bounds them."""
        match self.scenario:
            case MlperfScenario.SINGLE_STREAM:
                return 1
            case MlperfScenario.MULTI_STREAM:
                return SAMPLES_PER_MULTI_STREAM_QUERY
            case MlperfScenario.SERVER:
                return None
            case MlperfScenario.OFFLINE:
                return self.concurrency

    def describe(self) -> str:
        """The scenario in words, for a report."""
        rate = "" if self.rate_per_s is None else f", {self.rate_per_s:g} a second"
        bound = "" if self.latency_bound_ms is None else f", p99 within {self.latency_bound_ms:g} ms"
        return f"MLPerf {self.scenario}{rate}{bound}, at least {self.min_duration_s:g} s (LoadGen, seed {self.seed})"


def server_bound_ms(model: str) -> float:
    """MLPerf's own bound of the model's p99 in the server scenario, told by the beginning of its name."""
    for name, bound_ms in SERVER_BOUND_MS_BY_MODEL.items():
        if model.lower().startswith(name):
            return bound_ms
    return DEFAULT_SERVER_BOUND_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What LoadGen's summary says of a run."""

    valid: bool
    conditions: dict[str, bool]
    """Each of LoadGen's conditions and whether it was satisfied."""
    recommendations: tuple[str, ...]
    early_stopping: tuple[str, ...]
    figures: dict[str, float]
    """Under LoadGen's own names, which say the unit."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the run is invalid, by LoadGen's account."""
        if self.valid:
            return ()
        unmet = tuple(f"{name}: no" for name, satisfied in self.conditions.items() if not satisfied)
        return (*unmet, *self.recommendations, *(() if self.recommendations else self.early_stopping))

    def with_failures(self, failed: int) -> Verdict:
        """The same, invalid where queries failed: LoadGen is told only that they ended."""
        if failed == 0:
            return self
        unmet = {f"Every query answered ({failed} not)": False}
        return replace(self, valid=False, conditions={**self.conditions, **unmet})

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @staticmethod
    def from_json(document: dict[str, Any]) -> Verdict:
        """The counterpart of `to_json`."""
        return Verdict(
            valid=document["valid"],
            conditions=document["conditions"],
            recommendations=tuple(document["recommendations"]),
            early_stopping=tuple(document["early_stopping"]),
            figures=document["figures"],
        )


def parse_summary(text: str) -> Verdict:
    """Read `mlperf_log_summary.txt`; raises LoadTestError when it holds no verdict."""
    valid: bool | None = None
    conditions: dict[str, bool] = {}
    figures: dict[str, float] = {}
    lists: dict[str, list[str]] = {"Recommendations": [], "Early Stopping Result": []}
    current: list[str] | None = None
    for line in text.split("Test Parameters Used", maxsplit=1)[0].splitlines():
        heading = line.strip().removesuffix(":")
        if heading in lists:
            current = lists[heading]
        elif current is not None and line.startswith(" * "):
            current.append(line.removeprefix(" * ").strip())
        elif current and line.startswith(" ") and line.strip():
            # A point goes on in the next line.
            current[-1] += f" {line.strip()}"
        elif found := _RESULT.match(line):
            valid = found["value"] == "VALID"
        elif found := _CONDITION.match(line.strip()):
            conditions[found["name"]] = found["value"].lower() == "yes"
        elif found := _FIGURE.match(line):
            figures[found["name"]] = float(found["value"])
            current = None
    if valid is None:
        raise LoadTestError("LoadGen's summary holds no verdict: it ended before the run did")
    return Verdict(
        valid=valid,
        conditions=conditions,
        recommendations=tuple(lists["Recommendations"]),
        early_stopping=tuple(lists["Early Stopping Result"]),
        figures=figures,
    )
