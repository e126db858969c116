"""What /metrics shows of workers' memory, and of models' in it."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, Metric

from erg_server.workers.memory_watch import MemoryWatch


def memory_families(watch: MemoryWatch) -> Iterable[Metric]:
    """Live bytes and peaks by worker and by model."""
    for name, text, by_worker in (
        ("erg_worker_memory_bytes", "Memory of a worker by kind, at most seconds old.", watch.workers),
        ("erg_worker_memory_peak_bytes", "The most it was since the server started.", watch.worker_peaks),
    ):
        family = GaugeMetricFamily(name, text, labels=("worker", "kind"))
        for key, nbytes in sorted(by_worker.items()):
            family.add_metric(key, nbytes)
        yield family
    for name, text, by_model in (
        ("erg_model_memory_bytes", "What a model holds of a worker's memory, or of its GPU's.", watch.models),
        ("erg_model_memory_peak_bytes", "The most it was since the server started.", watch.model_peaks),
    ):
        family = GaugeMetricFamily(name, text, labels=("model", "version", "worker"))
        for ((model, version), worker), nbytes in sorted(by_model.items()):
            family.add_metric((model, version, worker), nbytes)
        yield family
