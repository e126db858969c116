"""Counts what was fetched and what failed, by location, and shows it at /metrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, Metric, SummaryMetricFamily


@dataclass(slots=True, kw_only=True)
class FetchMeter:
    """Of one location. `fetches` are units that were fetched whole, `seconds` the time that they took together."""

    repository: str
    polls: int = 0
    poll_failures: int = 0
    fetch_failures: int = 0
    fetched_bytes: int = 0
    fetches: int = 0
    seconds: float = 0.0


def fetch_families(meters: Sequence[FetchMeter]) -> Iterable[Metric]:
    """Every family, a sample for each location; nothing where there are none."""
    if not meters:
        return
    for name, text, figures in (
        ("erg_repository_polls", "Looks at the repository.", [each.polls for each in meters]),
        (
            "erg_repository_poll_failures",
            "Looks that failed; what was served is served on.",
            [each.poll_failures for each in meters],
        ),
        (
            "erg_repository_fetch_failures",
            "Versions and files that could not be fetched, or were not what their manifest says.",
            [each.fetch_failures for each in meters],
        ),
        (
            "erg_repository_fetched_bytes",
            "Bytes that came from the repository.",
            [each.fetched_bytes for each in meters],
        ),
    ):
        family = CounterMetricFamily(name, text, labels=("repository",))
        for meter, figure in zip(meters, figures, strict=True):
            family.add_metric((meter.repository,), figure)
        yield family
    summary = SummaryMetricFamily(
        "erg_repository_fetch_seconds",
        "Time that fetching a version or a model's own files took.",
        labels=("repository",),
    )
    for meter in meters:
        summary.add_metric((meter.repository,), count_value=meter.fetches, sum_value=meter.seconds)
    yield summary
