"""What /metrics shows of the memory that the server may use, and of how much of it is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSample:
    """Bytes that whatever `scope` names may use at most, and uses: the server's container, or the host."""

    scope: Literal["container", "host"]
    limit_bytes: int
    used_bytes: int


def limit_families(sample: LimitSample) -> Iterable[Metric]:
    """The limit and what of it is used, by the same labels, so that one can be divided by the other."""
    for name, text, nbytes in (
        ("erg_memory_limit_bytes", "Memory that the server may use: its container's, else the host's.",
         sample.limit_bytes),
        ("erg_memory_used_bytes", "What of it is in use and cannot be had back: for a container its working set.",
         sample.used_bytes),
    ):  # fmt: skip
        family = GaugeMetricFamily(name, text, labels=("scope",))
        family.add_metric((sample.scope,), nbytes)
        yield family
