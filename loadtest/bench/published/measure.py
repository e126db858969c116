"""One turn of one server, and whether its answers are right; the same code for every server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
from bench.published.clients import TIMEOUT_S, Client
from bench.published.figures import Turn
from bench.published.models import DISTINCT, BenchModel, rows_of
from erg_loadtest.arrivals import NS_PER_S, ClosedLoop, Limit
from erg_loadtest.dispatch import MonotonicTimer, Requests, drive
from erg_loadtest.errors import LoadTestError, ServerError
from erg_loadtest.samples import Samples, summarise_ns
from erg_loadtest.server_cpu import CpuSeconds, ProcessTreeCpuMeter
from erg_loadtest.tensors import Array

_WARM_UP = Limit(requests=64, duration_s=0.7)


async def take_turn(
    client: Client, pid: int, *, model: str, server: str, in_flight: int, number: int, seconds: float
) -> Turn:
    """Warm up, then send for `seconds` and read the CPU time of the server's processes around exactly that.

    Raises:
        LoadTestError: the server's processes cannot be read, or it answered nothing.
    """
    arrivals = ClosedLoop(concurrency=in_flight)
    requests = Requests(send=client.sender(), distinct=DISTINCT)
    meter = ProcessTreeCpuMeter(pid)
    # No timer a request, which would be the client's cost: a server that never answers ends the turn.
    try:
        async with asyncio.timeout(2 * TIMEOUT_S + seconds):
            await drive(arrivals=arrivals, limit=_WARM_UP, requests=requests, timer=MonotonicTimer())
            before = await asyncio.to_thread(meter.read)
            client_before_s = time.process_time()
            samples = await drive(
                arrivals=arrivals, limit=Limit(duration_s=seconds), requests=requests, timer=MonotonicTimer()
            )
            client_s = time.process_time() - client_before_s
            spent = (await asyncio.to_thread(meter.read)).since(before)
    except TimeoutError:
        raise ServerError(f"{server} left requests unanswered for {TIMEOUT_S} s") from None
    if isinstance(spent, str):
        raise ServerError(f"{server}: {spent}")
    return turn_of(samples, spent, client_s, model=model, server=server, in_flight=in_flight, number=number)


def turn_of(
    samples: Samples, spent: CpuSeconds, client_s: float, *, model: str, server: str, in_flight: int, number: int
) -> Turn:
    """The figures of a turn; raises LoadTestError where nothing was answered, for then there is none."""
    good = samples.succeeded
    latency = summarise_ns((samples.done_ns - samples.due_ns)[good])
    if latency is None:
        raise LoadTestError(f"{server} answered none of {len(samples)} requests: {samples.count_by_status()}")
    wall_s = samples.window_ns() / NS_PER_S
    count = latency.count
    return Turn(
        model=model,
        server=server,
        in_flight=in_flight,
        round=number,
        requests_per_s=count / wall_s,
        cpu_us=(spent.front + sum(spent.by_worker.values())) / count * 1e6,
        p50_us=latency.percentile_us(50.0),
        p99_us=latency.percentile_us(99.0),
        client_cpu_us=client_s / count * 1e6,
        client_share=client_s / wall_s,
        failed=len(samples) - count,
    )


def reference(model: BenchModel, onnx: Path) -> list[Array]:
    """What ONNX Runtime alone answers to every distinct request."""
    import onnxruntime  # noqa: PLC0415 - loading it costs a second, which turns need not wait for

    session = onnxruntime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    return [session.run([model.output], row)[0][0] for row in rows_of(model)]


async def compared(client: Client, wanted: list[Array], *, least_cosine: float) -> str:
    """All distinct requests at once, so that batches form, and how far the answers are from those wanted.

    Raises:
        ServerError: one is another request's, or not the model's: its cosine is below `least_cosine`.
    """
    found = await asyncio.gather(*(client.output(index) for index in range(len(wanted))))
    cosines = [_cosine(answer, expected) for answer, expected in zip(found, wanted, strict=True)]
    worst = min(range(len(cosines)), key=cosines.__getitem__)
    if not cosines[worst] >= least_cosine:
        raise ServerError(
            f"the answer to request {worst} has cosine {cosines[worst]:.4f} to ONNX Runtime's, not {least_cosine}"
        )
    apart = max(float(np.abs(answer - expected).max()) for answer, expected in zip(found, wanted, strict=True))
    return f"cosine ≥ {cosines[worst]:.6f}, at most {apart:.1e} apart"


def _cosine(one: Array, other: Array) -> float:
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
