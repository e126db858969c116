"""Finds what is wrong with a service objective: it must be a time that a server could keep."""

from __future__ import annotations

from collections.abc import Iterator

from erg_server.repository.config import ConfigDocument
from erg_server.repository.problem import Problem

MIN_P99_MS = 0.1
"""About what handing one batch to a worker and back takes; nothing is answered sooner."""
MAX_P99_MS = 3_600_000.0
_KEY = "erg.slo"


def check_objective(document: ConfigDocument) -> Iterator[Problem]:
    """The problems of `erg.slo`; none where there is no objective."""
    config = document.config
    if not config.erg.HasField("slo"):
        return
    key, p99_ms = f"{_KEY}.p99_ms", config.erg.slo.p99_ms
    if not document.gives(key):
        yield document.problem(_KEY, "states no p99_ms", "add p99_ms, the milliseconds for 99 of 100 requests")
        return
    # Written so that it is true for NaN.
    if not MIN_P99_MS <= p99_ms <= MAX_P99_MS:
        allowed = f"allowed: {MIN_P99_MS:g} to {MAX_P99_MS:.0f} milliseconds"
        yield document.problem(key, f"{p99_ms:g} is no time to answer in", allowed)
        return
    batching = config.dynamic_batching
    delay_ms = batching.max_queue_delay_microseconds / 1e3
    if config.WhichOneof("scheduling_choice") == "dynamic_batching" and delay_ms >= p99_ms:
        message = f"requests may wait {delay_ms:g} ms for their batch, which is all of p99_ms, {p99_ms:g}"
        yield document.problem(
            "dynamic_batching.max_queue_delay_microseconds", message, "leave the key out", severity="warning"
        )
