"""When requests are due: a closed loop, or an open loop that does not wait for the server. Pure: no clock, no I/O."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from erg_loadtest.errors import PlanError

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """So many callers, each sending its next request when the last is answered.

    The arrivals slow down with the server, so this measures throughput and never what users of a slow server see.
    """

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise PlanError(f"concurrency must be at least 1, not {self.concurrency}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantRate:
    """One request each 1/rate seconds, whether or not earlier ones were answered."""

    rate_per_s: float
    phase_s: float = 0.0
    """The first request's offset: what keeps the parts of a split rate evenly interleaved."""

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonRate:
    """Independent arrivals at an average rate, as many unrelated users make them; a seed repeats the same run."""

    rate_per_s: float
    seed: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)


OpenLoop = ConstantRate | PoissonRate
Arrivals = ClosedLoop | ConstantRate | PoissonRate


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """Where a run ends: after so many requests, after so long, or at the first of both. Never nowhere."""

    requests: int | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if self.requests is None and self.duration_s is None:
            raise PlanError("a run needs an end: a number of requests, a duration, or both")
        if self.requests is not None and self.requests < 0:
            raise PlanError(f"the number of requests cannot be {self.requests}")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise PlanError(f"the duration must be positive and finite, not {self.duration_s} s")

    @property
    def duration_ns(self) -> int | None:
        """The duration in nanoseconds."""
        return None if self.duration_s is None else round(self.duration_s * NS_PER_S)


def due_offsets_ns(arrivals: OpenLoop) -> Iterator[int]:
    """Endless offsets from the start of the run at which requests are due; they never go back."""
    return _constant_ns(arrivals) if isinstance(arrivals, ConstantRate) else _poisson_ns(arrivals)


def split_arrivals(arrivals: Arrivals, parts: int) -> tuple[Arrivals, ...]:
    """The same load as `parts` independent streams, one a client process."""
    if parts < 1:
        raise PlanError(f"the number of client processes must be at least 1, not {parts}")
    if isinstance(arrivals, ClosedLoop):
        if arrivals.concurrency < parts:
            raise PlanError(f"a concurrency of {arrivals.concurrency} cannot be split over {parts} client processes")
        return tuple(ClosedLoop(concurrency=share) for share in _shares(arrivals.concurrency, parts))
    share = arrivals.rate_per_s / parts
    if isinstance(arrivals, ConstantRate):
        return tuple(
            ConstantRate(rate_per_s=share, phase_s=arrivals.phase_s + part / arrivals.rate_per_s)
            for part in range(parts)
        )
    # The sum of independent Poisson processes is one; only their seeds must differ.
    return tuple(PoissonRate(rate_per_s=share, seed=arrivals.seed + 7919 * part) for part in range(parts))


def split_limit(limit: Limit, parts: int) -> tuple[Limit, ...]:
    """The limit of each of `parts` streams; their requests add up to the whole's."""
    if limit.requests is None:
        return (limit,) * parts
    return tuple(Limit(requests=share, duration_s=limit.duration_s) for share in _shares(limit.requests, parts))


def describe(arrivals: Arrivals) -> str:
    """The process in words, for a report."""
    match arrivals:
        case ClosedLoop():
            return f"closed loop of {arrivals.concurrency}"
        case ConstantRate():
            return f"open loop, {arrivals.rate_per_s:g} a second, evenly"
        case PoissonRate():
            return f"open loop, {arrivals.rate_per_s:g} a second, Poisson (seed {arrivals.seed})"


def _constant_ns(arrivals: ConstantRate) -> Iterator[int]:
    # From the index, not by adding up: a rounded interval would drift from the rate asked for.
    for index in itertools.count():
        yield round((arrivals.phase_s + index / arrivals.rate_per_s) * NS_PER_S)


def _poisson_ns(arrivals: PoissonRate) -> Iterator[int]:
    generator = random.Random(arrivals.seed)  # noqa: S311 - arrivals, not secrets
    due_s = 0.0
    while True:
        due_s += generator.expovariate(arrivals.rate_per_s)
        yield round(due_s * NS_PER_S)


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _check_rate(rate_per_s: float) -> None:
    if not 0 < rate_per_s < math.inf:
        raise PlanError(f"the rate must be positive and finite, not {rate_per_s} a second")
