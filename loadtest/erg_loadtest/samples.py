"""What happened to each request, and the summaries of it: exact percentiles over every sample, none estimated."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

STATUS_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED", "WRONG_ANSWER",
)  # fmt: skip
"""gRPC's status codes by number, then our own: an answer that a check refused."""

OK = 0
WRONG_ANSWER = len(STATUS_NAMES) - 1

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One entry a request, in order of completion; times are of this machine's monotonic clock, in nanoseconds."""

    due_ns: Int64s
    """When the request should have left. Latency counts from here: a client that falls behind because the server
    is slow would otherwise leave out exactly the waits that matter (coordinated omission)."""
    sent_ns: Int64s
    done_ns: Int64s
    status: Int64s
    payload: Int64s
    """Which of the prepared requests it was."""

    def __len__(self) -> int:
        return len(self.done_ns)

    @property
    def succeeded(self) -> npt.NDArray[np.bool_]:
        """Which requests were answered rightly."""
        return np.equal(self.status, OK)

    def count_by_status(self) -> dict[str, int]:
        """How many requests ended with each status, OK among them."""
        codes, counts = np.unique(self.status, return_counts=True)
        return {STATUS_NAMES[code]: int(count) for code, count in zip(codes, counts, strict=True)}

    def window_ns(self) -> int:
        """From the first request's due time to the last answer."""
        return int(self.done_ns.max() - self.due_ns.min()) if len(self) else 0

    @staticmethod
    def merge(parts: Sequence[Samples]) -> Samples:
        """All parts as one; they must share a clock, as processes of one machine do."""
        merged = {name: np.concatenate([getattr(part, name) for part in parts]) for name in Samples.__slots__}
        order = np.argsort(merged["done_ns"], kind="stable")
        return Samples(**{name: values[order] for name, values in merged.items()})

    def arrays(self) -> dict[str, Any]:
        """The columns by name, as numpy saves them."""
        return {name: getattr(self, name) for name in Samples.__slots__}


class Recorder:
    """Collects samples as they complete; compact, since a run may hold millions."""

    __slots__ = ("_done_ns", "_due_ns", "_payload", "_sent_ns", "_status")

    def __init__(self) -> None:
        self._due_ns = array("q")
        self._sent_ns = array("q")
        self._done_ns = array("q")
        self._status = array("q")
        self._payload = array("q")

    def __len__(self) -> int:
        return len(self._done_ns)

    def add(self, *, due_ns: int, sent_ns: int, done_ns: int, status: int, payload: int) -> None:
        """Record one finished request."""
        self._due_ns.append(due_ns)
        self._sent_ns.append(sent_ns)
        self._done_ns.append(done_ns)
        self._status.append(status)
        self._payload.append(payload)

    def samples(self) -> Samples:
        """Everything recorded, copied."""
        return Samples(
            due_ns=np.array(self._due_ns, dtype=np.int64),
            sent_ns=np.array(self._sent_ns, dtype=np.int64),
            done_ns=np.array(self._done_ns, dtype=np.int64),
            status=np.array(self._status, dtype=np.int64),
            payload=np.array(self._payload, dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DurationSummary:
    """The distribution of one duration, in microseconds."""

    count: int
    mean_us: float
    min_us: float
    max_us: float
    percentiles_us: dict[float, float]
    """Nearest rank: each is a duration that really occurred."""

    def percentile_us(self, percentile: float) -> float:
        """One of `PERCENTILES`."""
        return self.percentiles_us[percentile]


def summarise_ns(durations_ns: Int64s) -> DurationSummary | None:
    """The summary of durations in nanoseconds; None when there are none, because no figure would be true."""
    if len(durations_ns) == 0:
        return None
    values = np.percentile(durations_ns, PERCENTILES, method="inverted_cdf") / 1e3
    return DurationSummary(
        count=len(durations_ns),
        mean_us=float(durations_ns.mean() / 1e3),
        min_us=float(durations_ns.min() / 1e3),
        max_us=float(durations_ns.max() / 1e3),
        percentiles_us={p: float(v) for p, v in zip(PERCENTILES, values, strict=True)},
    )
