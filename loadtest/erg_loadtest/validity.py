"""Whether a run measured the server or the client that loaded it, and which percentiles its samples support. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from erg_loadtest.arrivals import ClosedLoop, OpenLoop
from erg_loadtest.samples import PERCENTILES, DurationSummary, Int64s, Samples

LATE_US = 2000.0
LATE_SHARE = 0.2
"""A request may leave late by 2 ms, or by a fifth of the p99 service time where that is more (both p99)."""
MIN_RATE_SHARE = 0.98
MAX_BUSY_SHARE = 0.9
MIN_SAMPLES_BEYOND = 10
"""A percentile p is supported by n samples when n x (1 - p) is at least this: 1,000 for p99."""
_BOUND_REACHED_SHARE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientUse:
    """What sending took of the client."""

    cpu_s: float
    """Of all its processes and threads."""
    processes: int
    max_in_flight: int
    """The bound over all processes."""
    loop_busy: float | None = None
    """The share of the run that the busiest process' event loop was on a CPU or waiting for one (`thread_use`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """The verdict on a run: invalid means that its figures are the client's, not the server's."""

    reasons: tuple[str, ...] = ()
    """Why the run is invalid, each with its figures and the fix."""
    notes: tuple[str, ...] = ()
    """What a reader should know of a valid run."""
    unsupported_percentiles: tuple[float, ...] = ()
    """Those with too few samples beyond them to be more than an anecdote."""

    @property
    def valid(self) -> bool:
        """Whether the figures are the server's."""
        return not self.reasons

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "valid": self.valid,
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "unsupported_percentiles": [f"p{percentile:g}" for percentile in self.unsupported_percentiles],
        }


def judge(
    samples: Samples, arrivals: ClosedLoop | OpenLoop | None, service: DurationSummary | None, client: ClientUse
) -> Validity:
    """Apply the criteria to a run; `service` is the time from sending to the answer, of right answers.

    Any load: the client's event loop was busy, on a CPU or waiting for one, for at most 90 % of the run; everything
    else of a client waits for that one thread. Open loops: the p99 send delay is at most max(2 ms, 20 % of the p99
    service time), and when every request was answered, they left at 98 % or more of the rate at which they were due.
    Delays at the in-flight bound are the server's doing, and only noted. `arrivals` is None where somebody else
    decides when requests leave.
    """
    reasons = _busy(samples, client)
    notes: list[str] = []
    if arrivals is not None and not isinstance(arrivals, ClosedLoop):
        found = _late(samples, service)
        if found and most_in_flight(samples) >= _BOUND_REACHED_SHARE * client.max_in_flight:
            notes.append(
                f"The server did not keep up: {client.max_in_flight:,} requests were in flight, the client's bound, "
                "and others waited for their turn. Latency includes that wait."
            )
        else:
            reasons += found
    return Validity(
        reasons=tuple(reasons),
        notes=tuple(notes),
        unsupported_percentiles=unsupported_percentiles(0 if service is None else service.count),
    )


def unsupported_percentiles(count: int) -> tuple[float, ...]:
    """Which of `PERCENTILES` have fewer than `MIN_SAMPLES_BEYOND` of `count` samples beyond them."""
    # In hundredths of a percent, so that 1,000 samples support p99 exactly.
    return tuple(p for p in PERCENTILES if count * round((100 - p) * 100) < MIN_SAMPLES_BEYOND * 10_000)


def most_in_flight(samples: Samples) -> int:
    """The most requests that were on their way at once."""
    if len(samples) == 0:
        return 0
    sent_ns = np.sort(samples.sent_ns)
    answered = np.searchsorted(np.sort(samples.done_ns), sent_ns, side="right")
    return int((np.arange(1, len(sent_ns) + 1) - answered).max())


def _busy(samples: Samples, client: ClientUse) -> list[str]:
    wall_s = samples.window_ns() / 1e9
    if wall_s <= 0:
        return []
    busy = client.cpu_s / (wall_s * client.processes) if client.loop_busy is None else client.loop_busy
    if busy <= MAX_BUSY_SHARE:
        return []
    reason = (
        f"The client itself was at its limit of CPU: its event loop ran, or waited for a CPU, for {busy:.0%} of the "
        f"run, more than {MAX_BUSY_SHARE:.0%}. Use --processes {client.processes + 1} or more, or a machine of its own."
    )
    return [reason]


def _late(samples: Samples, service: DurationSummary | None) -> list[str]:
    if len(samples) == 0 or service is None:
        return []
    delay_ns = samples.sent_ns - samples.due_ns
    allowed_us = max(LATE_US, LATE_SHARE * service.percentile_us(99.0))
    late_us = float(np.percentile(delay_ns, 99.0, method="inverted_cdf")) / 1e3
    reasons = []
    if late_us > allowed_us:
        reasons.append(
            f"The client sent its requests up to {late_us / 1e3:.2f} ms late (p99), more than the "
            f"{allowed_us / 1e3:.2f} ms that the service time allows; latency includes that wait. "
            "The client is short of CPU: use --processes, or a machine of its own."
        )
    due_ns, sent_ns = _span(samples.due_ns), _span(samples.sent_ns)
    # A short run's rate is all jitter: the lag must be one that lateness would count as well.
    lagged = sent_ns - due_ns > allowed_us * 1e3 and sent_ns * MIN_RATE_SHARE > due_ns
    if lagged and bool(samples.succeeded.all()):
        reasons.append(
            f"Requests left at {due_ns / sent_ns:.1%} of the rate at which they were due, less than "
            f"{MIN_RATE_SHARE:.0%}, though the server answered all of them: the client could not send faster. "
            "Use --processes or a lower rate."
        )
    return reasons


def _span(times_ns: Int64s) -> int:
    return int(times_ns.max() - times_ns.min())
