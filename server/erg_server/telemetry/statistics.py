"""The statistics extension's message from a meter; the same counts that the metrics show."""

from __future__ import annotations

from erg_server.pb import inference_pb2 as pb
from erg_server.telemetry.meter import ModelMeter


def model_statistics(meter: ModelMeter) -> pb.ModelStatistics:
    """One version's statistics; durations are cumulative nanoseconds."""
    failures = sum(meter.failures.values())
    count = meter.success_count
    return pb.ModelStatistics(
        name=meter.name,
        version=meter.version,
        last_inference=meter.last_inference_ms,
        inference_count=meter.rows,
        execution_count=meter.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(count, meter.success_ns),
            fail=_duration(failures, meter.failure_ns),
            queue=_duration(count, meter.queue_ns),
            compute_input=_duration(count, meter.compute_input_ns),
            compute_infer=_duration(count, meter.compute_infer_ns),
            compute_output=_duration(count, meter.compute_output_ns),
            cache_hit=_duration(0, 0),
            cache_miss=_duration(0, 0),
        ),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(batch.count, batch.input_ns),
                compute_infer=_duration(batch.count, batch.infer_ns),
                compute_output=_duration(batch.count, batch.output_ns),
            )
            for rows, batch in sorted(meter.batches.items())
        ],
    )


def _duration(count: int, ns: int) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=max(0, ns))
