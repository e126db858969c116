"""The counts behind metrics and statistics: plain integers, added to once a request and once a batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from erg_server.request import Phases
from erg_server.telemetry.histogram import LATENCY_BUCKETS_NS, ROWS_BUCKETS, SHARE_BUCKETS_PERCENT, Histogram

FailureReason = Literal["REJECTED", "CANCELED", "BACKEND", "OTHER"]
FAILURE_REASONS: tuple[FailureReason, ...] = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


RefusalReason = Literal["deadline", "predicted_late", "queue_full", "priority", "unloaded"]
"""Why a request was not taken: its deadline was over or is nearer than what the model takes alone, what waits would
make it late, the queue is full, its priority is none of the model's, or the version was unloaded."""
REFUSAL_REASONS: tuple[RefusalReason, ...] = ("deadline", "predicted_late", "queue_full", "priority", "unloaded")


@dataclass(slots=True)
class BatchSum:
    """Executions of one batch size and their summed times."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


class ModelMeter:
    """Everything counted for one version. Only the event loop's thread calls it."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.pending = 0
        self.success_count = 0
        self.success_ns = 0
        self.rows = 0
        self.queue_ns = 0
        self.compute_input_ns = 0
        self.compute_infer_ns = 0
        self.compute_output_ns = 0
        self.failures: dict[str, int] = dict.fromkeys(FAILURE_REASONS, 0)
        self.failure_ns = 0
        self.executions = 0
        self.batches: dict[int, BatchSum] = {}
        self.releases: Counter[str] = Counter()
        self.refusals: Counter[RefusalReason] = Counter()
        self.met_deadlines = 0
        self.missed_deadlines = 0
        self.dropped = 0
        self.padded_elements = 0
        self.real_elements = 0
        self.last_inference_ms = 0
        self.request_histogram = Histogram(LATENCY_BUCKETS_NS)
        self.queue_histogram = Histogram(LATENCY_BUCKETS_NS)
        self.compute_histogram = Histogram(LATENCY_BUCKETS_NS)
        self.rows_histogram = Histogram(ROWS_BUCKETS)
        self.padding_histogram = Histogram(SHARE_BUCKETS_PERCENT)

    def enqueued(self) -> None:
        """A request joined the queue."""
        self.pending += 1

    def dequeued(self, count: int = 1) -> None:
        """Requests left the queue, whichever way."""
        self.pending -= count

    def succeeded(self, batch: Sequence[Phases], rows: int) -> None:
        """The requests of a batch were answered, `rows` rows in all.

        Each one's compute times are the batch's, as in Triton's statistics.
        """
        totals_ns = [phases.completed_ns - phases.arrival_ns for phases in batch]
        queues_ns = [phases.dispatched_ns - phases.queued_ns for phases in batch]
        count, first = len(batch), batch[0]
        self.success_count += count
        self.success_ns += sum(totals_ns)
        self.rows += rows
        self.queue_ns += sum(queues_ns)
        self.compute_input_ns += count * first.compute_input_ns
        self.compute_infer_ns += count * first.compute_infer_ns
        self.compute_output_ns += count * first.compute_output_ns
        self.request_histogram.observe_all(totals_ns)
        self.queue_histogram.observe_all(queues_ns)

    def failed(self, reason: FailureReason, duration_ns: int) -> None:
        """A request was refused, cancelled, or failed in its batch."""
        self.failures[reason] += 1
        self.failure_ns += duration_ns

    def refused(self, reason: RefusalReason, duration_ns: int) -> None:
        """A request was not taken into the queue."""
        self.refusals[reason] += 1
        self.failed("REJECTED", duration_ns)

    def expired(self, duration_ns: int) -> None:
        """A request left the queue because it would have been too late; nothing was spent on it."""
        self.dropped += 1
        self.failed("REJECTED", duration_ns)

    def answered_in_time(self, met: int, missed: int) -> None:
        """Of the requests of a batch that had a deadline, so many met it and so many did not."""
        self.met_deadlines += met
        self.missed_deadlines += missed

    def executed(
        self,
        rows: int,
        reason: str,
        *,
        input_ns: int,
        infer_ns: int,
        output_ns: int,
        padded_elements: int,
        real_elements: int,
    ) -> None:
        """A batch ran; `reason` says why it was let go."""
        batch = self.batches.get(rows)
        if batch is None:
            batch = self.batches[rows] = BatchSum()
        batch.count += 1
        batch.input_ns += input_ns
        batch.infer_ns += infer_ns
        batch.output_ns += output_ns
        self.executions += 1
        self.releases[reason] += 1
        self.padded_elements += padded_elements
        self.real_elements += real_elements
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.compute_histogram.observe(input_ns + infer_ns + output_ns)
        self.rows_histogram.observe(rows)
        elements = padded_elements + real_elements
        self.padding_histogram.observe(100 * padded_elements // elements if elements else 0)


class Meter:
    """Every version's meter. A version that is loaded again goes on counting where it stopped."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], ModelMeter] = {}

    def model(self, name: str, version: str) -> ModelMeter:
        """The meter of one version, made at first use."""
        meter = self._models.get((name, version))
        if meter is None:
            meter = self._models[name, version] = ModelMeter(name, version)
        return meter

    def models(self) -> list[ModelMeter]:
        """Every meter, by name and version."""
        return [self._models[key] for key in sorted(self._models)]
