"""What /metrics shows of readiness: the server's, each model's, and which versions failed to load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """Whether a request for the model would be served now, and by version whether its last load failed.

    Version "" stands for the model's configuration, where it cannot be read.
    """

    model: str
    ready: bool
    failed: Mapping[str, bool]


def readiness_families(server_ready: bool, models: Iterable[ModelState]) -> Iterable[Metric]:
    """Gauges of 0 and 1."""
    server = GaugeMetricFamily("erg_server_ready", "1 while the server should get requests, as /readyz says.")
    server.add_metric((), server_ready)
    ready = GaugeMetricFamily(
        "erg_model_ready", "1 while a request for the model's newest version would be served.", labels=("model",)
    )
    failed = GaugeMetricFamily(
        "erg_model_load_failed",
        "1 while the last load of the version failed; what served before it still does.",
        labels=("model", "version"),
    )
    for state in models:
        ready.add_metric((state.model,), state.ready)
        for version, value in sorted(state.failed.items()):
            failed.add_metric((state.model, version), value)
    yield from (server, ready, failed)
