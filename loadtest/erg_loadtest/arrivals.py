"""When requests are due: a closed loop, or an open loop that does not wait for the server. Pure: no clock, no I/O."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from erg_loadtest.errors import PlanError
from erg_loadtest.mlperf import Mlperf

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstyRate:
    """Poisson arrivals whose rate switches: each period begins with a burst, and the average is kept.

    In a burst the rate is `factor` times the average; outside it is what remains,
    average x (1 - share x factor) / (1 - share). Arrivals are drawn by inverting the cumulative rate (Cinlar's method
    for inhomogeneous Poisson processes), so a seed repeats the same run.
    """

    rate_per_s: float
    """The average over a whole period."""
    factor: float = 5.0
    share: float = 0.1
    """The part of each period that is burst."""
    period_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_rate(self.rate_per_s)
        if not 1 < self.factor < math.inf:
            raise PlanError(f"the burst factor must be above 1 and finite, not {self.factor:g}")
        if not 0 < self.share < 1:
            raise PlanError(f"the burst share must be between 0 and 1, not {self.share:g}")
        if not 0 < self.period_s < math.inf:
            raise PlanError(f"the burst period must be positive and finite, not {self.period_s:g} s")
        if self.factor * self.share > 1:
            raise PlanError(
                f"bursts of {self.factor:g} times the rate for {self.share:.0%} of the time are more than the average "
                f"allows: lower the factor to {1 / self.share:g} or the share to {1 / self.factor:g}"
            )

    @property
    def quiet_rate_per_s(self) -> float:
        """The rate outside bursts."""
        return self.rate_per_s * max(0.0, 1 - self.share * self.factor) / (1 - self.share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Recorded arrivals, played once; see `trace_file`."""

    offsets_ns: tuple[int, ...]
    """When each request is due, counted from the start of the run and never going back."""
    source: str
    """What was recorded, for the report."""
    speed: float = 1.0
    """How much faster than recorded; the offsets have it in them already."""

    def __post_init__(self) -> None:
        if not self.offsets_ns:
            raise PlanError(f"{self.source}: there is no request to replay")

    @property
    def rate_per_s(self) -> float | None:
        """The mean rate; None of fewer than two requests or when all are due at once."""
        span_ns = self.offsets_ns[-1] - self.offsets_ns[0]
        return (len(self.offsets_ns) - 1) * NS_PER_S / span_ns if span_ns else None


OpenLoop = ConstantRate | PoissonRate | BurstyRate | Replay
Arrivals = ClosedLoop | OpenLoop


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
    """Offsets from the start of the run at which requests are due; they never go back, and end only with a replay."""
    match arrivals:
        case ConstantRate():
            return _constant_ns(arrivals)
        case PoissonRate():
            return _poisson_ns(arrivals)
        case BurstyRate():
            return _bursty_ns(arrivals)
        case Replay():
            return iter(arrivals.offsets_ns)


def describe(arrivals: Arrivals | Mlperf) -> str:
    """The process in words, for a report."""
    match arrivals:
        case ClosedLoop():
            return f"closed loop of {arrivals.concurrency}"
        case ConstantRate():
            return f"open loop, {arrivals.rate_per_s:g} a second, evenly"
        case PoissonRate():
            return f"open loop, {arrivals.rate_per_s:g} a second, Poisson (seed {arrivals.seed})"
        case BurstyRate():
            return (
                f"open loop, {arrivals.rate_per_s:g} a second on average, bursts of {arrivals.factor:g} times that for "
                f"{arrivals.share:.0%} of each {arrivals.period_s:g} s (seed {arrivals.seed})"
            )
        case Replay():
            rate = "" if arrivals.rate_per_s is None else f", {arrivals.rate_per_s:g} a second on average"
            return f"replay of {arrivals.source} at {arrivals.speed:g} times its speed{rate}"
        case Mlperf():
            return arrivals.describe()


def arrivals_json(arrivals: Arrivals | Mlperf) -> dict[str, Any]:
    """The process as plain values; of a replay its source, not its times."""
    document = {"kind": type(arrivals).__name__, **asdict(arrivals)}
    if isinstance(arrivals, Replay):
        document["requests"] = len(document.pop("offsets_ns"))
        document["rate_per_s"] = arrivals.rate_per_s
    return document


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


def _bursty_ns(arrivals: BurstyRate) -> Iterator[int]:
    # Arrivals of a unit rate, stretched by the inverse of the expected count so far: exact in burst and out of it.
    generator = random.Random(arrivals.seed)  # noqa: S311 - arrivals, not secrets
    expected_in_period = arrivals.rate_per_s * arrivals.period_s
    expected_in_burst = expected_in_period * arrivals.share * arrivals.factor
    burst_rate_per_s, quiet_rate_per_s = arrivals.rate_per_s * arrivals.factor, arrivals.quiet_rate_per_s
    expected = 0.0
    while True:
        expected += generator.expovariate(1.0)
        periods, rest = divmod(expected, expected_in_period)
        if rest < expected_in_burst or quiet_rate_per_s == 0:
            within_s = rest / burst_rate_per_s
        else:
            within_s = arrivals.period_s * arrivals.share + (rest - expected_in_burst) / quiet_rate_per_s
        yield round((periods * arrivals.period_s + within_s) * NS_PER_S)


def _check_rate(rate_per_s: float) -> None:
    if not 0 < rate_per_s < math.inf:
        raise PlanError(f"the rate must be positive and finite, not {rate_per_s} a second")
