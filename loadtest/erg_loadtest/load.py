"""One load test, whole: prepare, warm up, read the server's counters, drive, read them again, and say what happened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from erg_loadtest.arrivals import Arrivals, ClosedLoop, Limit
from erg_loadtest.client import Check, InferClient, Target
from erg_loadtest.cost import CpuPrice, cost_of
from erg_loadtest.dispatch import DEFAULT_MAX_IN_FLIGHT, precise_event_loop
from erg_loadtest.errors import PlanError, ServerError
from erg_loadtest.fleet import Fleet, Local, Work
from erg_loadtest.input_data import payloads_from_file
from erg_loadtest.payloads import Payload
from erg_loadtest.record import RunRecord, read_software
from erg_loadtest.result import CpuUse, LoadResult
from erg_loadtest.samples import Samples
from erg_loadtest.scenarios import RandomScenario
from erg_loadtest.server_cpu import CpuMeter, CpuSeconds, MetricsCpuMeter, ProcessTreeCpuMeter
from erg_loadtest.server_statistics import ServerPhases, difference, read_counts
from erg_loadtest.server_watch import ServerWatch, page_reader, process_reader, reading_interval_s

Progress = Callable[[str, int, int | None], None]
"""Told the phase ("warm-up" or "measuring"), how many requests finished, and how many will if that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileScenario:
    """Requests from a file, see `input_data`."""

    path: Path
    batch_size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedScenario:
    """Requests that the caller serialised."""

    payloads: tuple[Payload, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Everything one run needs to know; the same plan makes the same requests."""

    model: str
    version: str = ""
    target: Target = field(default_factory=Target)
    arrivals: Arrivals = field(default_factory=lambda: ClosedLoop(concurrency=8))
    limit: Limit = field(default_factory=lambda: Limit(duration_s=10.0))
    warmup: Limit | None = field(default_factory=lambda: Limit(requests=50, duration_s=10.0))
    """Sent first, in a closed loop, and left out of every figure."""
    scenario: RandomScenario | FileScenario | PreparedScenario = field(default_factory=RandomScenario)
    processes: int = 1
    """Client processes; 1 sends from this one."""
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    ready_timeout_s: float = 10.0
    metrics_url: str | None = None
    server_pid: int | None = None
    price: CpuPrice | None = None

    def __post_init__(self) -> None:
        if self.metrics_url is not None and self.server_pid is not None:
            raise PlanError("the server's CPU time is read from its metrics or from its process, not from both")
        if self.max_in_flight < 1:
            raise PlanError(f"at least one request must be allowed in flight, not {self.max_in_flight}")


def run_load(plan: LoadPlan, *, progress: Progress | None = None, check: Check | None = None) -> LoadResult:
    """Run a load test to its end. `check` sees every answer, and works with one client process only."""
    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        return runner.run(run_load_async(plan, progress=progress, check=check))


async def run_load_async(plan: LoadPlan, *, progress: Progress | None = None, check: Check | None = None) -> LoadResult:
    """`run_load` for callers with an event loop of their own."""
    if check is not None and plan.processes > 1:
        raise PlanError("answers can be checked with one client process only")
    meter = _cpu_meter(plan)
    async with InferClient(plan.target) as client:
        await client.wait_ready(plan.model, plan.version, plan.ready_timeout_s)
        payloads = await _payloads(plan, client)
        work = Work(
            target=plan.target,
            arrivals=plan.arrivals,
            limit=plan.limit,
            warmup=plan.warmup,
            payloads=payloads,
            max_in_flight=plan.max_in_flight,
        )
        runner = Local(work, client, check) if plan.processes == 1 else Fleet(work, plan.processes)
        async with runner:
            await runner.warm_up(_report(progress, "warm-up", plan.warmup))
            counts_before = await read_counts(client, plan.model, plan.version)
            cpu_before = await _read_cpu(meter)
            client_before = time.process_time()
            started_unix_s = time.time()
            async with _watch(plan) as watch:
                samples = await runner.measure(_report(progress, "measuring", plan.limit))
            client_cpu_s = time.process_time() - client_before + runner.children_cpu_s
            cpu_after = await _read_cpu(meter)
            counts_after = await read_counts(client, plan.model, plan.version)
        software = await read_software(client)
    result = _result(
        plan,
        samples,
        payloads,
        cpu=_cpu_use(meter, cpu_before, cpu_after),
        client_cpu_s=client_cpu_s,
        server=difference(counts_before, counts_after),
    )
    record = RunRecord(
        samples=samples,
        rows=tuple(payload.rows for payload in payloads),
        readings=tuple(watch.readings),
        readings_missing=watch.missing,
        software=software,
        started_unix_s=started_unix_s,
    )
    return replace(result, record=record)


def _watch(plan: LoadPlan) -> ServerWatch:
    read = None
    if plan.metrics_url is not None:
        read = page_reader(plan.metrics_url)
    elif plan.server_pid is not None:
        read = process_reader(plan.server_pid)
    return ServerWatch(read, reading_interval_s(plan.limit.duration_s))


async def _payloads(plan: LoadPlan, client: InferClient) -> tuple[Payload, ...]:
    if isinstance(plan.scenario, PreparedScenario):
        payloads = plan.scenario.payloads
    else:
        signature = await client.signature(plan.model, plan.version)
        if isinstance(plan.scenario, FileScenario):
            payloads = tuple(payloads_from_file(plan.scenario.path, signature, batch_size=plan.scenario.batch_size))
        else:
            payloads = tuple(plan.scenario.payloads(signature))
    if not payloads:
        raise PlanError("there is no request to send")
    return payloads


def _cpu_meter(plan: LoadPlan) -> CpuMeter | None:
    if plan.metrics_url is not None:
        return MetricsCpuMeter(plan.metrics_url)
    if plan.server_pid is not None:
        return ProcessTreeCpuMeter(plan.server_pid)
    return None


async def _read_cpu(meter: CpuMeter | None) -> CpuSeconds | str:
    if meter is None:
        return "not asked for: give the metrics URL or the server's process id"
    try:
        return await asyncio.to_thread(meter.read)
    except ServerError as error:
        return str(error)


def _cpu_use(meter: CpuMeter | None, before: CpuSeconds | str, after: CpuSeconds | str) -> CpuUse | str:
    if isinstance(before, str):
        return before
    if isinstance(after, str):
        return after
    spent = after.since(before)
    if isinstance(spent, str) or meter is None:
        return str(spent)
    return CpuUse(front_s=spent.front, by_worker_s=dict(spent.by_worker), source=meter.source)


def _report(progress: Progress | None, phase: str, limit: Limit | None) -> Callable[[int], None] | None:
    if progress is None or limit is None:
        return None
    # With a duration as well, the number of requests is only a bound.
    total = limit.requests if limit.duration_s is None else None
    return lambda done: progress(phase, done, total)


def _result(
    plan: LoadPlan,
    samples: Samples,
    payloads: tuple[Payload, ...],
    *,
    cpu: CpuUse | str,
    client_cpu_s: float,
    server: ServerPhases | str,
) -> LoadResult:
    result = LoadResult.from_samples(
        samples,
        rows=[payload.rows for payload in payloads],
        model=plan.model,
        version=plan.version,
        url=plan.target.url,
        arrivals=plan.arrivals,
        connections=plan.target.connections,
        processes=plan.processes,
        server=server,
        cpu=cpu,
        client_cpu_s=client_cpu_s,
    )
    if plan.price is None or isinstance(cpu, str):
        return result
    return result.priced(
        cost_of(cpu_seconds=cpu.total_s, inferences=result.inferences, price=plan.price, source=cpu.source)
    )
