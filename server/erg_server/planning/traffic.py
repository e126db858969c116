"""The requests that one model is to get: by a rate and a pattern, or as they were recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from erg_server.simulation.arrivals import bursts, poisson, trace

ArrivalPattern = Literal["poisson", "constant", "bursty"]
PATTERNS: tuple[ArrivalPattern, ...] = ("poisson", "constant", "bursty")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedArrivals:
    """Requests of `rows` rows each, `rate_per_s` of them a second over a long time.

    Bursts are `peak` times the mean rate, take `burst_share` of the time and last `burst_s` seconds on average.
    """

    rate_per_s: float
    pattern: ArrivalPattern = "poisson"
    rows: int = 1
    peak: float = 5.0
    burst_share: float = 0.1
    burst_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedArrivals:
    """Requests at `times_s` seconds from the start, ascending, with as many `rows` each."""

    times_s: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraffic:
    """What one model is asked. `objective_ns` and `length` are 0 and None where the load file states none.

    `place` is where the file names the model, for errors.
    """

    name: str
    arrivals: GeneratedArrivals | RecordedArrivals
    objective_ns: int = 0
    length: int | None = None
    place: str = ""

    @property
    def most_rows(self) -> int:
        """The rows of the largest request."""
        arrivals = self.arrivals
        return arrivals.rows if isinstance(arrivals, GeneratedArrivals) else max(arrivals.rows, default=1)

    def requests(self, seconds: float) -> float:
        """How many requests come within so many seconds, expected or recorded."""
        if isinstance(self.arrivals, GeneratedArrivals):
            return self.arrivals.rate_per_s * seconds
        return float(sum(at_s <= seconds for at_s in self.arrivals.times_s))

    def rows_per_s(self, seconds: float) -> float:
        """Rows a second over so many seconds, expected or recorded."""
        arrivals = self.arrivals
        if isinstance(arrivals, GeneratedArrivals):
            return arrivals.rate_per_s * arrivals.rows
        pairs = zip(arrivals.times_s, arrivals.rows, strict=True)
        return sum(rows for at_s, rows in pairs if at_s <= seconds) / seconds

    def times_ns(self, seed: int) -> Iterator[int]:
        """When the requests come. A model's times do not depend on which others there are."""
        arrivals = self.arrivals
        if isinstance(arrivals, RecordedArrivals):
            return trace(arrivals.times_s)
        rng = Random(f"{seed}:{self.name}")  # noqa: S311 (a simulation)
        if arrivals.pattern == "poisson":
            return poisson(arrivals.rate_per_s, rng)
        if arrivals.pattern == "constant":
            return constant(arrivals.rate_per_s, rng)
        return bursts(
            arrivals.rate_per_s, rng, peak=arrivals.peak, share=arrivals.burst_share, burst_s=arrivals.burst_s
        )

    def row_counts(self) -> Iterator[int]:
        """The rows of each request, in the order of their times."""
        arrivals = self.arrivals
        return itertools.repeat(arrivals.rows) if isinstance(arrivals, GeneratedArrivals) else iter(arrivals.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The traffic of every model that a load file names. `span_s` is how long it was recorded, None for rates."""

    models: tuple[ModelTraffic, ...]
    span_s: float | None = None


def constant(rate_per_s: float, rng: Random) -> Iterator[int]:
    """Equal gaps. The first request comes somewhere within one, so that models of equal rates do not march in step."""
    gap_ns = 1e9 / rate_per_s
    phase = rng.random()
    for number in itertools.count():
        yield round((number + phase) * gap_ns)
