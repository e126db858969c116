"""The counts behind metrics and statistics."""

from __future__ import annotations

from erg_server.telemetry.meter import Meter, ModelMeter
from hypothesis import given

from tests.server.telemetry.traffic import Answered, Event, Executed, Failed, events, metered


@given(events)
def test_counts_and_nanoseconds_are_exact_sums(traffic: list[Event]) -> None:
    meter = metered(traffic)
    answered = [event for event in traffic if isinstance(event, Answered)]
    executed = [event for event in traffic if isinstance(event, Executed)]
    failed = [event for event in traffic if isinstance(event, Failed)]
    assert meter.success_count == len(answered)
    assert meter.success_ns == sum(event.total_ns for event in answered)
    assert meter.queue_ns == sum(event.queue_ns for event in answered)
    assert meter.rows == sum(event.rows for event in answered)
    compute = (meter.compute_input_ns, meter.compute_infer_ns, meter.compute_output_ns)
    assert compute == tuple(sum(event.compute_ns[at] for event in answered) for at in range(3))
    assert meter.executions == len(executed)
    assert sum(batch.count for batch in meter.batches.values()) == len(executed)
    assert sum(rows * batch.count for rows, batch in meter.batches.items()) == sum(event.rows for event in executed)
    assert sum(batch.infer_ns for batch in meter.batches.values()) == sum(event.times_ns[1] for event in executed)
    assert sum(meter.releases.values()) == len(executed)
    assert meter.padded_elements == sum(event.padded for event in executed)
    assert sum(meter.failures.values()) == len(failed)
    assert meter.failure_ns == sum(event.duration_ns for event in failed)


@given(events)
def test_histograms_count_what_the_counters_count(traffic: list[Event]) -> None:
    meter = metered(traffic)
    assert sum(meter.request_histogram.counts) == sum(meter.queue_histogram.counts) == meter.success_count
    assert meter.request_histogram.total == meter.success_ns
    assert meter.queue_histogram.total == meter.queue_ns
    for histogram in (meter.compute_histogram, meter.rows_histogram, meter.padding_histogram):
        assert sum(histogram.counts) == meter.executions


def test_pending_follows_the_queue() -> None:
    meter = ModelMeter("m", "1")
    meter.enqueued()
    meter.enqueued()
    meter.dequeued()
    assert meter.pending == 1


def test_a_batch_without_elements_has_no_padding() -> None:
    meter = metered([Executed(rows=0, reason="idle", times_ns=(0, 0, 0), padded=0, real=0)])
    assert meter.padding_histogram.counts[0] == 1


def test_a_version_loaded_again_goes_on_counting() -> None:
    meter = Meter()
    meter.model("m", "1").failed("OTHER", 5)
    assert meter.model("m", "1").failures["OTHER"] == 1
    assert meter.model("m", "2").failures["OTHER"] == 0


def test_meters_come_by_name_and_version() -> None:
    meter = Meter()
    for key in (("b", "1"), ("a", "2"), ("a", "1")):
        meter.model(*key)
    assert [(each.name, each.version) for each in meter.models()] == [("a", "1"), ("a", "2"), ("b", "1")]
