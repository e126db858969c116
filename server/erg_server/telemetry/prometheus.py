"""What /metrics shows: Erg's own families in base units, and Triton's by their exact names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import psutil
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from erg_server.telemetry.histogram import Histogram
from erg_server.telemetry.meter import FAILURE_REASONS, REFUSAL_REASONS, Meter, ModelMeter

LABELS = ("model", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSample:
    """One worker at the moment of a scrape."""

    name: str
    ready: bool
    restarts: int
    held_batches: int
    cpu_seconds: float
    rss_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySample:
    """Memory that models are counted with, by pool (the machine's, or a GPU's), and how often each came and went.

    Only pools with a budget are in `budget_bytes`; `loads` and `evictions` are by (model, version).
    """

    used_bytes: dict[str, int]
    budget_bytes: dict[str, int]
    loads: dict[tuple[str, str], int]
    evictions: dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionSample:
    """What the scheduler expects of a version's batches of `rows` rows."""

    model: str
    version: str
    rows: int
    mean_seconds: float
    high_seconds: float


class ErgCollector(Collector):
    """Reads the meter and the workers when Prometheus asks; nothing is kept twice. `further` has more families."""

    def __init__(
        self,
        meter: Meter,
        workers: Callable[[], Sequence[WorkerSample]],
        memory: Callable[[], MemorySample],
        predictions: Callable[[], Sequence[PredictionSample]] = tuple,
        further: Sequence[Callable[[], Iterable[Metric]]] = (),
    ) -> None:
        self._meter = meter
        self._further = further
        self._predictions = predictions
        self._memory = memory
        self._workers = workers
        self._started_s = time.time()

    def collect(self) -> Iterator[Metric]:
        """Every family, once."""
        meters = self._meter.models()
        yield from _own_families(meters)
        yield from _triton_families(meters)
        yield from _worker_families(self._workers())
        yield from _memory_families(self._memory())
        yield _prediction_family(self._predictions())
        yield from _host_families()
        for families in self._further:
            yield from families()
        start = GaugeMetricFamily("erg_start_time_seconds", "When the server started, in Unix time.")
        start.add_metric((), self._started_s)
        yield start


def _prediction_family(samples: Iterable[PredictionSample]) -> Metric:
    family = GaugeMetricFamily(
        "erg_predicted_batch_seconds",
        "What a batch of so many rows is predicted to take, by statistic: the mean, and what 99 % do not exceed.",
        labels=(*LABELS, "rows", "statistic"),
    )
    for sample in samples:
        labels = (sample.model, sample.version, str(sample.rows))
        family.add_metric((*labels, "mean"), sample.mean_seconds)
        family.add_metric((*labels, "p99"), sample.high_seconds)
    return family


def render_metrics(collector: ErgCollector) -> bytes:
    """The text exposition."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _own_families(meters: Iterable[ModelMeter]) -> Iterator[Metric]:
    meters = list(meters)
    histograms: tuple[tuple[str, str, Callable[[ModelMeter], Histogram], float], ...] = (
        ("erg_request_duration_seconds", "Whole request, from its last byte in to its answer.",
         lambda meter: meter.request_histogram, 1e-9),
        ("erg_queue_duration_seconds", "Wait from admission to the batch.", lambda meter: meter.queue_histogram, 1e-9),
        ("erg_compute_duration_seconds", "A batch on its worker: inputs, model and outputs.",
         lambda meter: meter.compute_histogram, 1e-9),
        ("erg_batch_rows", "Rows in a batch.", lambda meter: meter.rows_histogram, 1.0),
        ("erg_batch_padding_ratio", "Share of a batch's input elements that are padding.",
         lambda meter: meter.padding_histogram, 0.01),
    )  # fmt: skip
    for name, text, of, scale in histograms:
        family = HistogramMetricFamily(name, text, labels=LABELS)
        for meter in meters:
            histogram = of(meter)
            family.add_metric(_labels(meter), histogram.cumulative(scale), sum_value=histogram.total * scale)
        yield family
    failures = CounterMetricFamily("erg_request_failures", "Requests refused or failed.", labels=(*LABELS, "reason"))
    releases = CounterMetricFamily(
        "erg_batch_releases", "Batches by the reason for which they were let go.", labels=(*LABELS, "reason")
    )
    elements = CounterMetricFamily(
        "erg_input_elements", "Input elements run, by whether they were sent or are padding.", labels=(*LABELS, "kind")
    )
    refusals = CounterMetricFamily(
        "erg_request_refusals", "Requests not taken into the queue, by reason.", labels=(*LABELS, "reason")
    )
    deadlines = CounterMetricFamily(
        "erg_deadline_requests",
        "Requests with a deadline that were taken, by whether they were answered in time (goodput) or late, or dropped "
        "before they ran.",
        labels=(*LABELS, "outcome"),
    )
    depth = GaugeMetricFamily("erg_queue_depth_requests", "Requests that wait for a worker.", labels=LABELS)
    for meter in meters:
        for reason in FAILURE_REASONS:
            failures.add_metric((*_labels(meter), reason), meter.failures[reason])
        for release, count in sorted(meter.releases.items()):
            releases.add_metric((*_labels(meter), release), count)
        for why in REFUSAL_REASONS:
            refusals.add_metric((*_labels(meter), why), meter.refusals[why])
        deadlines.add_metric((*_labels(meter), "met"), meter.met_deadlines)
        deadlines.add_metric((*_labels(meter), "late"), meter.missed_deadlines)
        deadlines.add_metric((*_labels(meter), "dropped"), meter.dropped)
        elements.add_metric((*_labels(meter), "real"), meter.real_elements)
        elements.add_metric((*_labels(meter), "padding"), meter.padded_elements)
        depth.add_metric(_labels(meter), meter.pending)
    yield from (failures, releases, refusals, deadlines, elements, depth)


def _triton_families(meters: Iterable[ModelMeter]) -> Iterator[Metric]:
    counters: tuple[tuple[str, str, Callable[[ModelMeter], float]], ...] = (
        ("nv_inference_request_success", "Successful requests.", lambda meter: meter.success_count),
        ("nv_inference_count", "Inferences: rows answered.", lambda meter: meter.rows),
        ("nv_inference_exec_count", "Batches run.", lambda meter: meter.executions),
        ("nv_inference_request_duration_us", "Cumulative request time.", lambda meter: meter.success_ns // 1000),
        ("nv_inference_queue_duration_us", "Cumulative queue time.", lambda meter: meter.queue_ns // 1000),
        ("nv_inference_compute_input_duration_us", "Cumulative input time.",
         lambda meter: meter.compute_input_ns // 1000),
        ("nv_inference_compute_infer_duration_us", "Cumulative model time.",
         lambda meter: meter.compute_infer_ns // 1000),
        ("nv_inference_compute_output_duration_us", "Cumulative output time.",
         lambda meter: meter.compute_output_ns // 1000),
    )  # fmt: skip
    meters = list(meters)
    for name, text, of in counters:
        family = _TritonCounter(name, text, LABELS)
        for meter in meters:
            family.add(_labels(meter), of(meter))
        yield family.metric
    failure = _TritonCounter("nv_inference_request_failure", "Failed requests.", (*LABELS, "reason"))
    pending = GaugeMetricFamily("nv_inference_pending_request_count", "Requests that wait.", labels=LABELS)
    for meter in meters:
        for reason in FAILURE_REASONS:
            failure.add((*_labels(meter), reason), meter.failures[reason])
        pending.add_metric(_labels(meter), meter.pending)
    yield failure.metric
    yield pending


class _TritonCounter:
    """A counter without the `_total` that the client library appends: Triton's dashboards read the bare name."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        # The text format writes a family of type "unknown" as untyped, so the sample's name stays as it is.
        self.metric = Metric(name, text, "unknown")
        self._labels = labels

    def add(self, values: tuple[str, ...], value: float) -> None:
        self.metric.add_sample(self.metric.name, dict(zip(self._labels, values, strict=True)), value)


def _worker_families(samples: Sequence[WorkerSample]) -> Iterator[Metric]:
    cpu = CounterMetricFamily(
        "erg_process_cpu_seconds", "CPU time, user and system, of the front and of each worker.",
        labels=("process", "worker"),
    )  # fmt: skip
    own = psutil.Process()
    cpu.add_metric(("front", ""), sum(own.cpu_times()[:2]))
    memory = GaugeMetricFamily("erg_process_resident_bytes", "Resident memory.", labels=("process", "worker"))
    memory.add_metric(("front", ""), own.memory_info().rss)
    ready = GaugeMetricFamily("erg_worker_ready", "1 while the worker takes batches.", labels=("worker",))
    restarts = CounterMetricFamily("erg_worker_restarts", "Times the worker process was restarted.", labels=("worker",))
    held = GaugeMetricFamily("erg_worker_held_batches", "Batches the worker runs or has staged.", labels=("worker",))
    for sample in samples:
        cpu.add_metric(("worker", sample.name), sample.cpu_seconds)
        memory.add_metric(("worker", sample.name), sample.rss_bytes)
        ready.add_metric((sample.name,), sample.ready)
        restarts.add_metric((sample.name,), sample.restarts)
        held.add_metric((sample.name,), sample.held_batches)
    yield from (cpu, memory, ready, restarts, held)


def _memory_families(sample: MemorySample) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "erg_models_resident_bytes", "Memory that loaded models are counted with.", labels=("pool",)
    )
    for pool, nbytes in sorted(sample.used_bytes.items()):
        used.add_metric((pool,), nbytes)
    budget = GaugeMetricFamily("erg_memory_budget_bytes", "What they may have (--memory-budget).", labels=("pool",))
    for pool, nbytes in sorted(sample.budget_bytes.items()):
        budget.add_metric((pool,), nbytes)
    loads = CounterMetricFamily("erg_model_loads", "Times a worker loaded the model.", labels=LABELS)
    for key, count in sorted(sample.loads.items()):
        loads.add_metric(key, count)
    evictions = CounterMetricFamily("erg_model_evictions", "Times the model gave way to others.", labels=LABELS)
    for key, count in sorted(sample.evictions.items()):
        evictions.add_metric(key, count)
    yield from (used, budget, loads, evictions)


def _host_families() -> Iterator[Metric]:
    memory = psutil.virtual_memory()
    for name, text, value in (
        ("nv_cpu_utilization", "CPU utilisation of the host, 0 to 1.", psutil.cpu_percent() / 100),
        ("nv_cpu_memory_total_bytes", "Memory of the host.", memory.total),
        ("nv_cpu_memory_used_bytes", "Memory of the host in use.", memory.total - memory.available),
    ):
        family = GaugeMetricFamily(name, text)
        family.add_metric((), value)
        yield family


def _labels(meter: ModelMeter) -> tuple[str, str]:
    return meter.name, meter.version
