"""What /metrics shows for autoscalers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from erg_server.autoscaling.replicas import Need


def scaling_families(need: Need) -> Iterator[Metric]:
    """The need of the whole server, and by model what waits and what time is to spare."""
    replicas = GaugeMetricFamily(
        "erg_replicas_needed",
        "Servers like this one that the load of this one needs to keep its objectives; add it up over servers.",
    )
    replicas.add_metric((), need.replicas)
    yield replicas
    queued = GaugeMetricFamily("erg_queue_seconds", "Device time that waiting requests will take.", labels=("model",))
    for name, seconds in sorted(need.queue_seconds.items()):
        queued.add_metric((name,), seconds)
    yield queued
    slack = GaugeMetricFamily(
        "erg_slack_seconds",
        "Until the tightest waiting request would be late, or what one that came now would have to spare.",
        labels=("model",),
    )
    for name, seconds in sorted(need.slack_seconds.items()):
        slack.add_metric((name,), seconds)
    yield slack
