"""What a server counted of one model: its statistics, and the outcomes of requests from its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import click
from bench.serving import Served, metric_samples
from erg_loadtest.client import InferClient, Target
from erg_loadtest.server_statistics import ServerCounts
from erg_loadtest.server_statistics import read_counts as read_server_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server counted of one model; `since` gives a run's."""

    rows: int = 0
    batches: int = 0
    refused: int = 0
    dropped: int = 0
    met: int = 0
    late: int = 0
    failed: int = 0
    failed_ns: int = 0

    def since(self, before: Counts) -> Counts:
        """What was added after `before`."""
        return Counts(**{name: getattr(self, name) - getattr(before, name) for name in Counts.__slots__})


async def read_statistics(server: Served, model: str) -> ServerCounts:
    """A model's own counters now.

    Raises:
        ClickException: the server tells none.
    """
    async with InferClient(Target(url=server.url)) as client:
        counts = await read_server_counts(client, model, "")
    if isinstance(counts, str):
        raise click.ClickException(counts)
    return counts


async def read_counts(server: Served, model: str) -> Counts:
    """Everything counted of a model now."""
    statistics = await read_statistics(server, model)
    refused, outcomes = 0, Counter[str]()
    for sample in metric_samples(server):
        if sample.labels.get("model") != model:
            continue
        if sample.name == "erg_request_refusals_total":
            refused += int(sample.value)
        elif sample.name == "erg_deadline_requests_total":
            outcomes[sample.labels["outcome"]] += int(sample.value)
    return Counts(
        rows=statistics.inferences,
        batches=statistics.executions,
        refused=refused,
        dropped=outcomes["dropped"],
        met=outcomes["met"],
        late=outcomes["late"],
        failed=statistics.failed,
        failed_ns=statistics.failed_ns,
    )
