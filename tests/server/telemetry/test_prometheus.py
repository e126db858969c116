"""What a scrape shows, read back with Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from erg_server.telemetry.meter import FAILURE_REASONS, Meter, ModelMeter
from erg_server.telemetry.prometheus import ErgCollector, MemorySample, WorkerSample, render_metrics
from erg_server.telemetry.statistics import model_statistics
from hypothesis import given
from prometheus_client.parser import text_string_to_metric_families

from tests.server.telemetry.traffic import Answered, Event, Executed, events

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
NV_MODEL = {
    "nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count",
    "nv_inference_request_duration_us", "nv_inference_queue_duration_us", "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us", "nv_inference_compute_output_duration_us",
    "nv_inference_pending_request_count",
}  # fmt: skip
NV_HOST = {"nv_cpu_utilization", "nv_cpu_memory_total_bytes", "nv_cpu_memory_used_bytes"}


NO_MEMORY = MemorySample(used_bytes={}, budget_bytes={}, loads={}, evictions={})


def scrape(meter: Meter, workers: Sequence[WorkerSample] = (), memory: MemorySample = NO_MEMORY) -> Samples:
    text = render_metrics(ErgCollector(meter, lambda: workers, lambda: memory)).decode()
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def figure(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted({"model": "minilm", "version": "1", **labels}.items()))]


def counted(traffic: list[Event]) -> tuple[Meter, ModelMeter]:
    meter = Meter()
    model = meter.model("minilm", "1")
    for event in traffic:
        event.count(model)
    return meter, model


def test_tritons_names_are_exact_and_labelled_model_and_version() -> None:
    meter, _ = counted([])
    samples = scrape(meter)
    triton = {name for name, _ in samples if name.startswith("nv_")}
    assert triton == NV_MODEL | NV_HOST | {"nv_inference_request_failure"}
    for name in NV_MODEL:
        assert figure(samples, name) == 0
    for reason in ("REJECTED", "CANCELED", "BACKEND", "OTHER"):
        assert figure(samples, "nv_inference_request_failure", reason=reason) == 0
    for name in NV_HOST:
        assert (name, ()) in samples


@given(events)
def test_metrics_and_statistics_agree(traffic: list[Event]) -> None:
    meter, model = counted(traffic)
    samples, message = scrape(meter), model_statistics(model)
    stats = message.inference_stats
    assert figure(samples, "nv_inference_request_success") == stats.success.count
    assert figure(samples, "nv_inference_count") == message.inference_count
    assert figure(samples, "nv_inference_exec_count") == message.execution_count
    failures = sum(figure(samples, "nv_inference_request_failure", reason=reason) for reason in FAILURE_REASONS)
    assert failures == stats.fail.count
    for phase, ns in (
        ("request", stats.success.ns), ("queue", stats.queue.ns), ("compute_input", stats.compute_input.ns),
        ("compute_infer", stats.compute_infer.ns), ("compute_output", stats.compute_output.ns),
    ):  # fmt: skip
        assert figure(samples, f"nv_inference_{phase}_duration_us") == ns // 1000
    assert figure(samples, "erg_request_duration_seconds_count") == stats.success.count
    assert figure(samples, "erg_request_duration_seconds_sum") == pytest.approx(stats.success.ns * 1e-9)
    assert figure(samples, "erg_queue_duration_seconds_sum") == pytest.approx(stats.queue.ns * 1e-9)
    assert figure(samples, "erg_batch_rows_count") == message.execution_count
    rows = sum(batch.batch_size * batch.compute_infer.count for batch in message.batch_stats)
    assert figure(samples, "erg_batch_rows_sum") == rows


def test_ergs_own_families_are_in_base_units() -> None:
    request = Answered(rows=1, before_queue_ns=0, queue_ns=2_000_000, after_queue_ns=1_000_000, compute_ns=(0, 0, 0))
    batch = Executed(rows=4, reason="full", times_ns=(0, 1_000_000, 0), padded=25, real=75)
    meter, model = counted([request, batch])
    model.enqueued()
    samples = scrape(meter)
    assert figure(samples, "erg_request_duration_seconds_bucket", le="0.0025") == 0
    assert figure(samples, "erg_request_duration_seconds_bucket", le="0.005") == 1
    assert figure(samples, "erg_request_duration_seconds_sum") == pytest.approx(0.003)
    assert figure(samples, "erg_batch_padding_ratio_bucket", le="0.2") == 0
    assert figure(samples, "erg_batch_padding_ratio_bucket", le="0.3") == 1
    assert figure(samples, "erg_queue_depth_requests") == 1
    assert figure(samples, "nv_inference_pending_request_count") == 1


def test_workers_are_shown_each_under_its_name() -> None:
    worker = WorkerSample(name="cpu1", ready=True, restarts=2, held_batches=1, cpu_seconds=1.5, rss_bytes=10)
    samples = scrape(Meter(), [worker])
    assert samples["erg_worker_ready", (("worker", "cpu1"),)] == 1
    assert samples["erg_worker_restarts_total", (("worker", "cpu1"),)] == 2
    assert samples["erg_worker_held_batches", (("worker", "cpu1"),)] == 1
    assert samples["erg_process_cpu_seconds_total", (("process", "worker"), ("worker", "cpu1"))] == 1.5
    assert samples["erg_process_resident_bytes", (("process", "worker"), ("worker", "cpu1"))] == 10
    assert samples["erg_process_resident_bytes", (("process", "front"), ("worker", ""))] > 0


def test_a_name_that_needs_escaping_comes_back() -> None:
    meter = Meter()
    meter.model('a"b\\c\nd', "1")
    labels = {labels["model"] for _, items in scrape(meter) if (labels := dict(items)).get("model")}
    assert labels == {'a"b\\c\nd'}


def test_the_start_is_told_in_unix_time() -> None:
    assert scrape(Meter())["erg_start_time_seconds", ()] > 1_600_000_000


def test_memory_is_shown_by_pool_and_what_came_and_went_by_version() -> None:
    memory = MemorySample(
        used_bytes={"cpu": 5, "gpu0": 7},
        budget_bytes={"gpu0": 9},
        loads={("minilm", "1"): 3},
        evictions={("minilm", "1"): 2},
    )
    samples = scrape(Meter(), memory=memory)
    assert samples["erg_models_resident_bytes", (("pool", "cpu"),)] == 5
    assert samples["erg_memory_budget_bytes", (("pool", "gpu0"),)] == 9
    assert ("erg_memory_budget_bytes", (("pool", "cpu"),)) not in samples
    assert figure(samples, "erg_model_loads_total") == 3
    assert figure(samples, "erg_model_evictions_total") == 2
