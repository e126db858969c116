"""A run cut into equal blocks of time: for intervals, and for a picture of how it went. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erg_loadtest.intervals import MIN_BLOCKS
from erg_loadtest.samples import Samples

_BLOCKS = 20
_REQUESTS_A_BLOCK = 5
_MAX_BUCKETS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Equal parts of a run. `due` and `done` number each request's block by when it was due and was answered."""

    count: int
    seconds: float
    """Of one block."""
    due: npt.NDArray[np.int64]
    done: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One step of the timeline. Rates and percentiles are of the requests that ended in it; None where none did."""

    start_s: float
    seconds: float
    requests: int
    failures: int
    p50_us: float | None
    p99_us: float | None


def cut(samples: Samples, count: int) -> Blocks:
    """The run in `count` blocks, from the first due time to the last answer."""
    start, window = int(samples.due_ns.min()), max(1, samples.window_ns())
    width = window / count

    def number(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.minimum(((times - start) / width).astype(np.int64), count - 1)

    return Blocks(count=count, seconds=width / 1e9, due=number(samples.due_ns), done=number(samples.done_ns))


def blocks_for(samples: Samples) -> Blocks | str:
    """As many blocks as the run has requests for, twenty at most; or why there are too few."""
    answered = int(samples.succeeded.sum())
    count = min(_BLOCKS, answered // _REQUESTS_A_BLOCK)
    if count < MIN_BLOCKS:
        return f"an interval needs {MIN_BLOCKS * _REQUESTS_A_BLOCK} answers, not {answered}: run longer"
    return cut(samples, count)


def timeline(samples: Samples) -> tuple[Bucket, ...]:
    """The run by the second; by several seconds where it took more than four minutes, less where it was short."""
    if not len(samples):
        return ()
    window_s = samples.window_ns() / 1e9
    width_s = max(1.0, math.ceil(window_s / _MAX_BUCKETS)) if window_s >= MIN_BLOCKS else max(window_s / 10, 1e-3)
    count = max(1, math.ceil(window_s / width_s))
    number = np.minimum(((samples.done_ns - samples.due_ns.min()) / (width_s * 1e9)).astype(np.int64), count - 1)
    elapsed_us, good = (samples.done_ns - samples.due_ns) / 1e3, samples.succeeded
    return tuple(
        _bucket(
            index * width_s,
            min(width_s, window_s - index * width_s),
            answered_us=elapsed_us[(number == index) & good],
            failures=int(((number == index) & ~good).sum()),
        )
        for index in range(count)
    )


def _bucket(start_s: float, seconds: float, *, answered_us: npt.NDArray[np.float64], failures: int) -> Bucket:
    p50, p99 = np.percentile(answered_us, (50, 99), method="inverted_cdf") if len(answered_us) else (None, None)
    return Bucket(
        start_s=start_s,
        seconds=seconds,
        requests=len(answered_us),
        failures=failures,
        p50_us=None if p50 is None else float(p50),
        p99_us=None if p99 is None else float(p99),
    )
