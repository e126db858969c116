"""The statistics extension's message."""

from __future__ import annotations

from erg_server.telemetry.meter import ModelMeter
from erg_server.telemetry.statistics import model_statistics
from hypothesis import given

from tests.server.telemetry.traffic import Answered, Event, Executed, Failed, events, metered


@given(events)
def test_the_message_tells_the_meters_figures(traffic: list[Event]) -> None:
    meter = metered(traffic)
    message = model_statistics(meter)
    assert (message.name, message.version) == ("minilm", "1")
    assert (message.inference_count, message.execution_count) == (meter.rows, meter.executions)
    stats = message.inference_stats
    assert (stats.success.count, stats.success.ns) == (meter.success_count, meter.success_ns)
    assert (stats.fail.count, stats.fail.ns) == (sum(meter.failures.values()), meter.failure_ns)
    phases = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    assert {phase.count for phase in phases} == {meter.success_count}
    assert [phase.ns for phase in phases] == [
        meter.queue_ns, meter.compute_input_ns, meter.compute_infer_ns, meter.compute_output_ns,
    ]  # fmt: skip
    assert [batch.batch_size for batch in message.batch_stats] == sorted(meter.batches)
    assert sum(batch.compute_infer.count for batch in message.batch_stats) == message.execution_count


def test_batches_are_told_by_size() -> None:
    batch = Executed(rows=4, reason="full", times_ns=(1, 20, 3), padded=0, real=8)
    alone = Executed(rows=1, reason="idle", times_ns=(1, 5, 2), padded=0, real=2)
    first, second = model_statistics(metered([batch, alone, batch])).batch_stats
    assert (first.batch_size, first.compute_infer.count, first.compute_infer.ns) == (1, 1, 5)
    assert (second.batch_size, second.compute_input.ns, second.compute_infer.ns) == (4, 2, 40)
    assert (second.compute_output.count, second.compute_output.ns) == (2, 6)


def test_a_model_nobody_asked_is_all_zeros() -> None:
    message = model_statistics(ModelMeter("m", "3"))
    assert message.last_inference == 0
    assert not message.batch_stats
    assert message.inference_stats.success.count == 0


def test_four_requests_in_one_batch_count_once_as_execution() -> None:
    request = Answered(rows=2, before_queue_ns=1, queue_ns=2, after_queue_ns=30, compute_ns=(1, 20, 3))
    batch = Executed(rows=8, reason="full", times_ns=(1, 20, 3), padded=0, real=8)
    message = model_statistics(metered([*[request] * 4, batch, Failed(reason="CANCELED", duration_ns=7)]))
    assert (message.inference_count, message.execution_count) == (8, 1)
    assert message.inference_stats.compute_infer.ns == 80
    assert message.inference_stats.fail.count == 1
    assert message.last_inference > 0
