"""What the server itself counted during a run: the difference of two ModelStatistics answers."""

from __future__ import annotations

from dataclasses import dataclass

import grpc.aio
from erg_server.pb import inference_pb2

from erg_loadtest.client import InferClient, describe_error


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCounts:
    """A model's counters, added up over the versions asked for."""

    inferences: int
    executions: int
    succeeded: int
    failed: int
    failed_ns: int
    """From arrival to the error, of those that failed."""
    total_ns: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    output_ns: int
    batches: dict[int, int]
    """Executions by batch size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPhases:
    """What one run added to the counters; durations are means of a request."""

    inferences: int
    executions: int
    succeeded: int
    failed: int
    mean_batch: float
    total_us: float
    queue_us: float
    input_us: float
    infer_us: float
    output_us: float
    batches: dict[int, int]


async def read_counts(client: InferClient, model: str, version: str) -> ServerCounts | str:
    """The counters now, or why there are none."""
    try:
        answer = await client.ask(
            "ModelStatistics",
            inference_pb2.ModelStatisticsRequest(name=model, version=version),
            inference_pb2.ModelStatisticsResponse.FromString,
        )
    except grpc.aio.AioRpcError as error:
        return f"the server tells no statistics ({describe_error(error)})"
    entries = list(answer.model_stats)
    batches: dict[int, int] = {}
    for entry in entries:
        for batch in entry.batch_stats:
            batches[batch.batch_size] = batches.get(batch.batch_size, 0) + batch.compute_infer.count
    phases = [entry.inference_stats for entry in entries]
    return ServerCounts(
        inferences=sum(entry.inference_count for entry in entries),
        executions=sum(entry.execution_count for entry in entries),
        succeeded=sum(phase.success.count for phase in phases),
        failed=sum(phase.fail.count for phase in phases),
        failed_ns=sum(phase.fail.ns for phase in phases),
        total_ns=sum(phase.success.ns for phase in phases),
        queue_ns=sum(phase.queue.ns for phase in phases),
        input_ns=sum(phase.compute_input.ns for phase in phases),
        infer_ns=sum(phase.compute_infer.ns for phase in phases),
        output_ns=sum(phase.compute_output.ns for phase in phases),
        batches=batches,
    )


def difference(before: ServerCounts | str, after: ServerCounts | str) -> ServerPhases | str:
    """What happened in between, or why that cannot be told."""
    if isinstance(before, str):
        return before
    if isinstance(after, str):
        return after
    executions = after.executions - before.executions
    inferences = after.inferences - before.inferences
    succeeded = after.succeeded - before.succeeded
    if min(executions, inferences, succeeded) < 0:
        return "the server's counters went back: it, or the model, was replaced during the run"
    if executions == 0 or succeeded == 0:
        return "the server counted no execution during the run"
    batches = {size: count - before.batches.get(size, 0) for size, count in sorted(after.batches.items())}
    return ServerPhases(
        inferences=inferences,
        executions=executions,
        succeeded=succeeded,
        failed=after.failed - before.failed,
        mean_batch=inferences / executions,
        total_us=(after.total_ns - before.total_ns) / succeeded / 1e3,
        queue_us=(after.queue_ns - before.queue_ns) / succeeded / 1e3,
        input_us=(after.input_ns - before.input_ns) / succeeded / 1e3,
        infer_us=(after.infer_ns - before.infer_ns) / succeeded / 1e3,
        output_us=(after.output_ns - before.output_ns) / succeeded / 1e3,
        batches={size: count for size, count in batches.items() if count > 0},
    )
