"""One load as several independent ones, so that each client process gets its share. Pure."""

from __future__ import annotations

import math
from dataclasses import replace

from erg_loadtest.arrivals import Arrivals, BurstyRate, ClosedLoop, ConstantRate, Limit, PoissonRate, Replay
from erg_loadtest.errors import PlanError

_SEED_STEP = 7919
_FULL_SHARE = 0.5
"""Queueing for the event loop starts to show in latencies long before it is full."""


def split_arrivals(arrivals: Arrivals, parts: int) -> tuple[Arrivals, ...]:
    """The same load as `parts` independent streams, one a client process."""
    if parts < 1:
        raise PlanError(f"the number of client processes must be at least 1, not {parts}")
    # The sum of independent Poisson processes is one, also where their rates vary together; only seeds must differ.
    match arrivals:
        case ClosedLoop():
            if arrivals.concurrency < parts:
                raise PlanError(
                    f"a concurrency of {arrivals.concurrency} cannot be split over {parts} client processes"
                )
            return tuple(ClosedLoop(concurrency=share) for share in _shares(arrivals.concurrency, parts))
        case ConstantRate():
            return tuple(
                ConstantRate(
                    rate_per_s=arrivals.rate_per_s / parts, phase_s=arrivals.phase_s + part / arrivals.rate_per_s
                )
                for part in range(parts)
            )
        case PoissonRate():
            return tuple(
                PoissonRate(rate_per_s=arrivals.rate_per_s / parts, seed=arrivals.seed + _SEED_STEP * part)
                for part in range(parts)
            )
        case BurstyRate():
            return tuple(
                replace(arrivals, rate_per_s=arrivals.rate_per_s / parts, seed=arrivals.seed + _SEED_STEP * part)
                for part in range(parts)
            )
        case Replay():
            if len(arrivals.offsets_ns) < parts:
                raise PlanError(
                    f"{arrivals.source}: {len(arrivals.offsets_ns)} requests cannot be split over {parts} processes"
                )
            return tuple(replace(arrivals, offsets_ns=arrivals.offsets_ns[part::parts]) for part in range(parts))


def split_limit(limit: Limit, parts: int) -> tuple[Limit, ...]:
    """The limit of each of `parts` streams; their requests add up to the whole's."""
    if limit.requests is None:
        return (limit,) * parts
    return tuple(Limit(requests=share, duration_s=limit.duration_s) for share in _shares(limit.requests, parts))


def processes_needed(arrivals: Arrivals, *, loop_cpu_s_per_request: float, loop_share: float, cpus: int) -> int:
    """How many client processes keep each event loop at most half busy, by what the warm-up took of one.

    An open loop's rate times the CPU seconds a request takes of the loop, at half a core a process. A closed loop goes
    as fast as it can: two processes when one was more than half busy in the warm-up, as `loop_share` says. Never more
    than there are CPUs or callers; a replay counts at its mean rate.
    """
    if isinstance(arrivals, ClosedLoop):
        return min(cpus, arrivals.concurrency, 2 if loop_share > _FULL_SHARE else 1)
    most = cpus if not isinstance(arrivals, Replay) else min(cpus, len(arrivals.offsets_ns))
    rate_per_s = arrivals.rate_per_s or 0.0
    return max(1, min(most, math.ceil(rate_per_s * loop_cpu_s_per_request / _FULL_SHARE)))


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]
