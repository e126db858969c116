"""An objective, and what runs at one rate say of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from erg_loadtest.blocks import cut
from erg_loadtest.errors import PlanError
from erg_loadtest.intervals import CONFIDENCE, Interval, proportion
from erg_loadtest.samples import Samples

Verdict = Literal["holds", "fails", "undecided"]

_BLOCKS = 20
PERCENTILE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """p99 of the answers within `p99_ms`, and a share of `success` of all requests answered rightly."""

    p99_ms: float
    success: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.p99_ms < math.inf:
            raise PlanError(f"--p99-ms must be positive and finite, not {self.p99_ms:g}")
        if not 0 < self.success < 1:
            raise PlanError(f"--success is a share between 0 and 1, without both, not {self.success:g}")

    @property
    def requests(self) -> int:
        """About as many as must all be in time before their interval says that the objective holds."""
        return math.ceil(5 / (1 - max(self.success, PERCENTILE)))

    def __str__(self) -> str:
        return f"p99 within {self.p99_ms:g} ms, {self.success * 100:g} % answered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What runs at one rate showed, by blocks of time: lists of one length, so that runs can be put together."""

    asked: tuple[int, ...]
    answered: tuple[int, ...]
    in_time: tuple[int, ...]
    """Answered rightly within the objective's latency."""

    @staticmethod
    def of(samples: Samples, objective: Objective) -> Observation:
        """Of one run."""
        if not len(samples):
            return Observation(asked=(), answered=(), in_time=())
        number = cut(samples, _BLOCKS).due
        good = samples.succeeded
        fast = good & (samples.done_ns - samples.due_ns <= objective.p99_ms * 1e6)

        def by_block(mask: Any) -> tuple[int, ...]:
            return tuple(int(count) for count in np.bincount(number[mask], minlength=_BLOCKS))

        return Observation(asked=by_block(slice(None)), answered=by_block(good), in_time=by_block(fast))

    @staticmethod
    def pooled(parts: Sequence[Observation]) -> Observation:
        """Several runs as one."""
        return Observation(
            asked=tuple(count for part in parts for count in part.asked),
            answered=tuple(count for part in parts for count in part.answered),
            in_time=tuple(count for part in parts for count in part.in_time),
        )

    @staticmethod
    def from_json(document: object) -> Observation:
        """The counterpart of `to_json`; raises PlanError."""
        try:
            found = Observation(**{name: tuple(map(int, document[name])) for name in Observation.__slots__})  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            raise PlanError("not a step of a search") from None
        if not len(found.asked) == len(found.answered) == len(found.in_time):
            raise PlanError("not a step of a search")
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether an objective holds, with the intervals that say so; None where nothing was answered."""

    verdict: Verdict
    success: Interval | None
    in_time: Interval | None


def judge(observed: Observation, objective: Objective, confidence: float = CONFIDENCE) -> Judgement:
    """It holds where both intervals are wholly on the right side, fails where one is wholly on the wrong one."""
    success = proportion(observed.answered, observed.asked, confidence)
    in_time = proportion(observed.in_time, observed.answered, confidence)
    if isinstance(success, str):
        return Judgement(verdict="undecided", success=None, in_time=None)
    if sum(observed.answered) == 0:
        return Judgement(verdict="fails", success=success, in_time=None)
    if isinstance(in_time, str):
        verdict: Verdict = "fails" if (success.high or 0.0) < objective.success else "undecided"
        return Judgement(verdict=verdict, success=success, in_time=None)
    targets = ((success, objective.success), (in_time, PERCENTILE))
    if any(found.high is not None and found.high < target for found, target in targets):
        verdict = "fails"
    elif all(found.low is not None and found.low >= target for found, target in targets):
        verdict = "holds"
    else:
        verdict = "undecided"
    return Judgement(verdict=verdict, success=success, in_time=in_time)
