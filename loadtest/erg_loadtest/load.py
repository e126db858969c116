"""One load test, whole: prepare, warm up, read the server's counters, drive, read them again, and say what happened."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from erg_loadtest.answers import CheckRule
from erg_loadtest.arrival_shares import processes_needed
from erg_loadtest.arrivals import Arrivals, ClosedLoop, Limit
from erg_loadtest.client import Check, InferClient, Target
from erg_loadtest.cost import CpuPrice, cost_of
from erg_loadtest.dispatch import DEFAULT_MAX_IN_FLIGHT, precise_event_loop
from erg_loadtest.errors import PlanError, ServerError
from erg_loadtest.fleet import Fleet, Local
from erg_loadtest.input_data import FileScenario
from erg_loadtest.loadgen import load_library
from erg_loadtest.mlperf import Mlperf, Verdict
from erg_loadtest.payloads import Payload
from erg_loadtest.record import RunRecord, read_software
from erg_loadtest.references import with_references
from erg_loadtest.result import CpuUse, LoadResult
from erg_loadtest.samples import Samples
from erg_loadtest.scenarios import RandomScenario
from erg_loadtest.server_cpu import CpuMeter, CpuSeconds, MetricsCpuMeter, ProcessTreeCpuMeter
from erg_loadtest.server_statistics import ServerPhases, difference, read_counts
from erg_loadtest.server_watch import ServerWatch, page_reader, process_reader, reading_interval_s
from erg_loadtest.work import Work

_MLPERF_WARMUP_CONCURRENCY = 8

Progress = Callable[[str, int, int | None], None]
"""Told the phase ("warm-up" or "measuring"), how many requests finished, and how many will if that is known."""


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
    arrivals: Arrivals | Mlperf = field(default_factory=lambda: ClosedLoop(concurrency=8))
    limit: Limit = field(default_factory=lambda: Limit(duration_s=10.0))
    warmup: Limit | None = field(default_factory=lambda: Limit(requests=50, duration_s=10.0))
    """Sent first, in a closed loop, and left out of every figure."""
    scenario: RandomScenario | FileScenario | PreparedScenario = field(default_factory=RandomScenario)
    check: CheckRule | None = None
    """How every answer is checked; None reads none."""
    batch_axis: bool = False
    """The first axis of every input is the batch's; for servers that tell no configuration."""
    processes: int | None = 1
    """Client processes; 1 sends from this one. None: as many as a warm-up of one shows to be needed."""
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
        if self.processes is not None and self.processes < 1:
            raise PlanError(f"the number of client processes must be at least 1, not {self.processes}")
        if isinstance(self.arrivals, Mlperf) and self.processes != 1:
            raise PlanError("LoadGen issues its queries in one client process: leave out --processes")


def run_load(plan: LoadPlan, *, progress: Progress | None = None, check: Check | None = None) -> LoadResult:
    """Run a load test to its end. `check` sees every answer, and works with one client process only."""
    with asyncio.Runner(loop_factory=precise_event_loop) as runner:
        return runner.run(run_load_async(plan, progress=progress, check=check))


async def run_load_async(plan: LoadPlan, *, progress: Progress | None = None, check: Check | None = None) -> LoadResult:
    """`run_load` for callers with an event loop of their own."""
    if check is not None and (plan.processes != 1 or isinstance(plan.arrivals, Mlperf)):
        raise PlanError("a callback checks what this process sends: use one process and no LoadGen, or the plan's rule")
    if check is not None and plan.check is not None:
        raise PlanError("answers are checked by the plan's rule or by a callback, not by both")
    meter = _cpu_meter(plan)
    async with InferClient(plan.target) as client:
        await client.wait_ready(plan.model, plan.version, plan.ready_timeout_s)
        payloads = await _payloads(plan, client)
        if plan.check is not None:
            payloads = await with_references(plan.check, payloads, client)
        work = Work(
            target=plan.target,
            arrivals=_sent_here(plan.arrivals),
            mlperf=plan.arrivals if isinstance(plan.arrivals, Mlperf) else None,
            limit=plan.limit,
            warmup=plan.warmup,
            payloads=payloads,
            max_in_flight=plan.max_in_flight,
            check=plan.check,
        )
        if plan.processes is None:
            plan = replace(plan, processes=await _processes_needed(work, client))
        runner = _runner(plan, work, client, check)
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
        client_loop_busy=runner.loop_busy,
        wrong_answer=runner.wrong_answer,
        mlperf=runner.verdict,
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


def _sent_here(arrivals: Arrivals | Mlperf) -> Arrivals:
    if isinstance(arrivals, Mlperf):
        # For the warm-up; LoadGen decides about the rest.
        return ClosedLoop(concurrency=arrivals.in_flight or _MLPERF_WARMUP_CONCURRENCY)
    return arrivals


async def _processes_needed(work: Work, client: InferClient) -> int:
    if work.warmup is None:
        raise PlanError("--processes auto is decided by the warm-up: leave out --warmup-request-count 0")
    before_s, cpu_before_s = time.perf_counter(), time.thread_time()
    samples = await Local(work, client).warm_up()
    cpu_s = time.thread_time() - cpu_before_s
    return processes_needed(
        work.arrivals,
        loop_cpu_s_per_request=cpu_s / max(1, 0 if samples is None else len(samples)),
        loop_share=cpu_s / max(time.perf_counter() - before_s, 1e-9),
        cpus=len(os.sched_getaffinity(0)),
    )


def _runner(plan: LoadPlan, work: Work, client: InferClient, check: Check | None) -> Local | Fleet:
    if work.mlperf is not None:
        # Here and now, so that a missing library is told before anything runs.
        load_library()
        return Fleet(work, 1)
    processes = plan.processes or 1
    return Local(work, client, check) if processes == 1 else Fleet(work, processes)


async def _payloads(plan: LoadPlan, client: InferClient) -> tuple[Payload, ...]:
    if isinstance(plan.scenario, PreparedScenario):
        payloads = plan.scenario.payloads
    else:
        signature = await client.signature(plan.model, plan.version, batch_axis=plan.batch_axis)
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
    client_loop_busy: float,
    mlperf: Verdict | None,
    wrong_answer: str | None,
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
        processes=plan.processes or 1,
        server=server,
        cpu=cpu,
        client_cpu_s=client_cpu_s,
        client_loop_busy=client_loop_busy,
        max_in_flight=plan.max_in_flight,
        mlperf=mlperf,
        wrong_answer=wrong_answer,
    )
    if plan.price is None or isinstance(cpu, str):
        return result
    return result.priced(
        cost_of(cpu_seconds=cpu.total_s, inferences=result.inferences, price=plan.price, source=cpu.source)
    )
