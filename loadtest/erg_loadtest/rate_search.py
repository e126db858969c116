"""The highest rate that holds an objective, by doubling and then bisection. Pure: trials in, the next step out.

What to do next follows from the trials alone, so a search that was interrupted goes on from the file of its trials.
A rate at which the client was the limit counts as one that does not hold, and the outcome says so where it bounds it.
A rate whose trials leave its verdict open is tried again for as long as all its trials took, and they are judged
together, until a bound; what is still open then is never promised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from erg_loadtest.errors import PlanError
from erg_loadtest.objective import PERCENTILE, Judgement, Objective, Observation, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchLimits:
    """Rates are of requests a second, durations of one trial and of all trials at one rate."""

    start_per_s: float = 10.0
    least_per_s: float = 0.1
    most_per_s: float = 1e6
    precision: float = 0.05
    """The bracket's width over its lower end at which to stop."""
    trial_s: float = 5.0
    rate_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.least_per_s <= self.start_per_s <= self.most_per_s < math.inf:
            raise PlanError("a search starts at a positive rate that is not above the highest one")
        if not 0 < self.trial_s <= self.rate_s < math.inf:
            raise PlanError("a step takes a positive time, not longer than the longest time for one rate")
        if not 0.001 <= self.precision < 1:
            raise PlanError(f"the precision is a share between 0.001 and 1, not {self.precision:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One finished run."""

    rate_per_s: float
    duration_s: float
    observation: Observation
    invalid: str = ""
    """Why its client could not say anything of the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to run next."""

    rate_per_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The end: the highest rate that holds, and the lowest one that does not; None where there is none."""

    holds_per_s: float | None
    fails_per_s: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RateJudgement:
    """All trials at one rate together."""

    rate_per_s: float
    seconds: float
    judgement: Judgement


def next_step(objective: Objective, limits: SearchLimits, trials: Sequence[Trial]) -> Step | Found:
    """Where the search goes after `trials`, in the order in which they ran."""
    if not trials:
        return _step(objective, limits, max(limits.start_per_s, _least(objective, limits)))
    judged = judgements(objective, trials)
    last = next((each for each in judged if each.rate_per_s == trials[-1].rate_per_s), None)
    if last is not None and last.judgement.verdict == "undecided" and last.seconds < limits.rate_s * 0.999:
        duration_s = min(max(last.seconds, limits.trial_s), limits.rate_s - last.seconds)
        return Step(rate_per_s=last.rate_per_s, duration_s=duration_s)
    invalid = {trial.rate_per_s: trial.invalid for trial in trials if trial.invalid}
    found = _bracket(objective, limits, judged, list(invalid))
    if isinstance(found, Found) and found.fails_per_s in invalid:
        reason = f"{found.reason}; at {found.fails_per_s:g} the client is the limit: {invalid[found.fails_per_s]}"
        return Found(holds_per_s=found.holds_per_s, fails_per_s=found.fails_per_s, reason=reason)
    return found


def judgements(objective: Objective, trials: Sequence[Trial]) -> list[RateJudgement]:
    """Every rate that was tried with what its trials say together, in the order of rates; invalid ones left out."""
    invalid = {trial.rate_per_s for trial in trials if trial.invalid}
    found = []
    for rate in sorted({trial.rate_per_s for trial in trials} - invalid):
        own = [trial for trial in trials if trial.rate_per_s == rate]
        observed = Observation.pooled([trial.observation for trial in own])
        seconds = sum(trial.duration_s for trial in own)
        found.append(RateJudgement(rate_per_s=rate, seconds=seconds, judgement=judge(observed, objective)))
    return found


def _bracket(
    objective: Objective, limits: SearchLimits, judged: Sequence[RateJudgement], invalid: Sequence[float]
) -> Step | Found:
    holding = [each.rate_per_s for each in judged if each.judgement.verdict == "holds"]
    # Open rates look well, but their requests were too few to promise it: higher ones have more of them.
    open_rates = [each.rate_per_s for each in judged if _promising(each.judgement, objective)]
    # A rate at which the client was the limit is not shown to hold: the search goes on below it.
    failing = [*invalid, *(each.rate_per_s for each in judged if each.rate_per_s not in {*holding, *open_rates})]
    top = max([*failing, *holding, *open_rates])
    if not failing and top < limits.most_per_s:
        return _step(objective, limits, min(2 * top, limits.most_per_s))
    if not failing and top in holding:
        return Found(holds_per_s=top, fails_per_s=None, reason="the highest rate allowed holds")
    above = min(failing, default=top)
    # A rate that holds above one that does not was lucky: what is promised lies below every failure.
    below = max((rate for rate in holding if rate < above), default=None)
    if below is None:
        return _downwards(objective, limits, [rate for rate in open_rates if rate < above], above)
    above = min([above, *(rate for rate in open_rates if rate > below)])
    if above / below <= 1 + limits.precision:
        return Found(holds_per_s=below, fails_per_s=above, reason="the bracket is as narrow as asked for")
    return _step(objective, limits, math.sqrt(below * above))


def _downwards(objective: Objective, limits: SearchLimits, open_rates: Sequence[float], above: float) -> Step | Found:
    if open_rates and above / max(open_rates) > 1 + limits.precision:
        return _step(objective, limits, math.sqrt(max(open_rates) * above))
    lowest, least = min([above, *open_rates]), _least(objective, limits)
    if lowest > least * 1.001:
        return _step(objective, limits, max(lowest / 2, least))
    reason = f"no rate holds the objective of those that {limits.rate_s:g} s are enough to tell of"
    return Found(holds_per_s=None, fails_per_s=above, reason=reason)


def _promising(judgement: Judgement, objective: Objective) -> bool:
    found = judgement.success, judgement.in_time
    return judgement.verdict == "undecided" and all(
        interval is not None and interval.value >= target
        for interval, target in zip(found, (objective.success, PERCENTILE), strict=True)
    )


def _least(objective: Objective, limits: SearchLimits) -> float:
    # Below it the longest time for one rate has too few requests for any verdict.
    return min(max(limits.least_per_s, objective.requests / limits.rate_s), limits.most_per_s)


def _step(objective: Objective, limits: SearchLimits, rate: float) -> Step:
    rounded = float(f"{rate:.4g}")
    wanted_s = objective.requests / rounded
    return Step(rate_per_s=rounded, duration_s=float(f"{min(max(limits.trial_s, wanted_s), limits.rate_s):.4g}"))
