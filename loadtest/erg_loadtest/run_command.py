"""`erg load MODEL`: one load test from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from erg_loadtest.arrivals import Arrivals, BurstyRate, ClosedLoop, ConstantRate, Limit, PoissonRate, Replay
from erg_loadtest.client import Target
from erg_loadtest.cost import CpuPrice
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.load import FileScenario, LoadPlan, run_load
from erg_loadtest.load import Progress as OnProgress
from erg_loadtest.mlperf import MIN_DURATION_S, MIN_QUERIES, Mlperf, MlperfScenario, server_bound_ms
from erg_loadtest.plots import save_latency_plot
from erg_loadtest.report import render
from erg_loadtest.scenarios import RandomScenario, parse_range, parse_shape
from erg_loadtest.trace_file import read_trace

_CLOSED_LOOP_DEFAULT = 8
_DURATION_DEFAULT_S = 10.0
_OFFLINE_IN_FLIGHT = 64
_FAILED = 1
_COULD_NOT_RUN = 2
_INVALID = 3


@click.command("run")
@click.argument("model")
@click.option("-u", "--url", default="127.0.0.1:8001", show_default=True, help="The server's gRPC address, HOST:PORT.")
@click.option("-x", "--model-version", default="", help="Version to call; the server chooses when left out.")
@click.option(
    "--concurrency",
    type=int,
    help="Closed loop: callers, each sending again when it is answered.  [default: 8]",
)
@click.option("--request-rate", type=float, help="Open loop: requests a second, sent when due, answered or not.")
@click.option(
    "--request-distribution",
    type=click.Choice(["poisson", "constant", "bursty"]),
    default="poisson",
    show_default=True,
    help="How an open loop spaces its requests: as unrelated users do, evenly, or in bursts.",
)
@click.option("--burst-factor", type=float, default=5.0, show_default=True, help="Bursty: a burst's rate, in averages.")
@click.option("--burst-share", type=float, default=0.1, show_default=True, help="Bursty: the part of time in bursts.")
@click.option("--burst-period", type=float, default=2.0, show_default=True, help="Bursty: seconds from burst to burst.")
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Replay recorded arrivals: a CSV with time_s in seconds (and model), or perf_analyzer's request intervals.",
)
@click.option("--replay-speed", type=float, default=1.0, show_default=True, help="How much faster than recorded.")
@click.option(
    "--mlperf",
    type=click.Choice([scenario.value for scenario in MlperfScenario]),
    help="Let MLPerf's LoadGen issue the queries and judge the run; server and offline need --request-rate.",
)
@click.option(
    "--latency-bound-ms", type=float, help="MLPerf server: the p99's bound.  [default: MLPerf's of the model, or 10]"
)
@click.option(
    "--min-duration", type=float, default=MIN_DURATION_S, show_default=True, help="MLPerf: seconds; its rules say 600."
)
@click.option("--min-queries", type=int, default=MIN_QUERIES, show_default=True, help="MLPerf: LoadGen's least.")
@click.option("--request-count", type=int, help="End after so many requests.")
@click.option("--duration", type=float, help="End after so many seconds.  [default: 10, unless --request-count]")
@click.option("--warmup-request-count", type=int, default=50, show_default=True, help="Sent first, not counted.")
@click.option("-b", "--batch-size", type=int, default=1, show_default=True, help="Rows in each request.")
@click.option("--shape", "shapes", multiple=True, help="NAME:SIZES without the batch axis: ids:128, or ids:5..128.")
@click.option("--range", "ranges", multiple=True, help="NAME:LOW:HIGH, bounds of an input's random values.")
@click.option("--omit", "omitted", multiple=True, help="An optional input not to send.")
@click.option("--distinct", type=int, default=64, show_default=True, help="Different random requests to prepare.")
@click.option("--seed", type=int, default=0, show_default=True, help="For the values, the sizes and the arrivals.")
@click.option(
    "--input-data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Requests from perf_analyzer's JSON or an .npz, in place of random ones.",
)
@click.option("--connections", type=int, default=2, show_default=True, help="Connections of each client process.")
@click.option("--processes", type=int, default=1, show_default=True, help="Client processes.")
@click.option("--client-timeout", type=float, default=60.0, show_default=True, help="Each request's deadline, seconds.")
@click.option("--metrics-url", help="Erg's metrics (http://HOST:8002/metrics), for its CPU time.")
@click.option("--server-pid", type=int, help="Process id of any server on this machine, for its CPU time.")
@click.option("--price-per-cpu-hour", type=float, help="For the cost of 1,000 inferences.")
@click.option("--currency", default="USD", show_default=True, help="The price's currency.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON with every latency here.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a .png of the latencies here.")
def run(
    *,
    form: str,
    output: Path | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Load MODEL on a v2 gRPC server and say what it did.

    Exit code 0 when every request was answered rightly, 1 when any was not, 2 when the test could not run, 3 when the
    run is invalid: the client was the limit, so that its figures say nothing about the server, or LoadGen says so.
    """
    console = Console()
    try:
        with _progress(shown=form == "table") as progress:
            result = run_load(_Options(**options).plan(), progress=progress)
        if output is not None:
            output.write_text(json.dumps(result.to_json(raw=True)) + "\n")
        if plot is not None:
            save_latency_plot(plot, {f"{result.model}": result})
    except LoadTestError as error:
        raise _UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        console.print(render(result))
    if result.failed or not result.succeeded:
        raise SystemExit(_FAILED)
    if not result.validity.valid or (result.mlperf is not None and not result.mlperf.valid):
        raise SystemExit(_INVALID)


class _UsageFailure(click.ClickException):
    exit_code = _COULD_NOT_RUN


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The flags that say what to do, as click has parsed them."""

    model: str
    url: str
    model_version: str
    concurrency: int | None
    request_rate: float | None
    request_distribution: str
    burst_factor: float
    burst_share: float
    burst_period: float
    trace: Path | None
    replay_speed: float
    mlperf: str | None
    latency_bound_ms: float | None
    min_duration: float
    min_queries: int
    request_count: int | None
    duration: float | None
    warmup_request_count: int
    batch_size: int
    shapes: tuple[str, ...]
    ranges: tuple[str, ...]
    omitted: tuple[str, ...]
    distinct: int
    seed: int
    input_data: Path | None
    connections: int
    processes: int
    client_timeout: float
    metrics_url: str | None
    server_pid: int | None
    price_per_cpu_hour: float | None
    currency: str

    def plan(self) -> LoadPlan:
        """The plan they describe; raises PlanError."""
        duration_s = self.duration
        arrivals = self._arrivals()
        request_count = self.request_count
        # LoadGen ends by itself, when its own conditions are met.
        if duration_s is None and request_count is None:
            # A replay ends by itself.
            if isinstance(arrivals, Replay):
                request_count = len(arrivals.offsets_ns)
            else:
                duration_s = _DURATION_DEFAULT_S
        return LoadPlan(
            model=self.model,
            version=self.model_version,
            target=Target(url=self.url, connections=self.connections, timeout_s=self.client_timeout),
            arrivals=arrivals,
            limit=Limit(requests=request_count, duration_s=duration_s),
            warmup=Limit(requests=self.warmup_request_count) if self.warmup_request_count else None,
            scenario=self._scenario(),
            processes=self.processes,
            metrics_url=self.metrics_url,
            server_pid=self.server_pid,
            price=self._price(),
        )

    def _arrivals(self) -> Arrivals | Mlperf:
        if self.mlperf is not None:
            return self._mlperf(MlperfScenario(self.mlperf))
        if self.latency_bound_ms is not None:
            raise PlanError("--latency-bound-ms is MLPerf's: give --mlperf server")
        if self.trace is not None:
            if self.request_rate is not None or self.concurrency is not None:
                raise PlanError("--trace says when requests are due: leave out --request-rate and --concurrency")
            return read_trace(self.trace, speed=self.replay_speed, model=self.model)
        if self.replay_speed != 1:
            raise PlanError("--replay-speed belongs to a recording: give --trace")
        if self.request_rate is None:
            return ClosedLoop(concurrency=_CLOSED_LOOP_DEFAULT if self.concurrency is None else self.concurrency)
        if self.concurrency is not None:
            raise PlanError("--concurrency makes a closed loop and --request-rate an open one: give one of them")
        if self.request_distribution == "constant":
            return ConstantRate(rate_per_s=self.request_rate)
        if self.request_distribution == "bursty":
            return BurstyRate(
                rate_per_s=self.request_rate,
                factor=self.burst_factor,
                share=self.burst_share,
                period_s=self.burst_period,
                seed=self.seed,
            )
        return PoissonRate(rate_per_s=self.request_rate, seed=self.seed)

    def _mlperf(self, scenario: MlperfScenario) -> Mlperf:
        if self.trace is not None or self.request_count is not None or self.duration is not None:
            raise PlanError("LoadGen decides about arrivals and end: use --min-duration and --min-queries alone")
        if self.batch_size != 1:
            raise PlanError("MLPerf's samples are single rows: leave out --batch-size, the server forms batches")
        bound_ms = self.latency_bound_ms
        if bound_ms is None and scenario is MlperfScenario.SERVER:
            bound_ms = server_bound_ms(self.model)
        if self.concurrency is not None and scenario is not MlperfScenario.OFFLINE:
            raise PlanError(f"MLPerf's {scenario} scenario has no --concurrency; offline's is what it keeps in flight")
        return Mlperf(
            scenario=scenario,
            rate_per_s=self.request_rate,
            latency_bound_ms=bound_ms,
            min_duration_s=self.min_duration,
            min_queries=self.min_queries,
            seed=self.seed,
            concurrency=_OFFLINE_IN_FLIGHT if self.concurrency is None else self.concurrency,
        )

    def _scenario(self) -> RandomScenario | FileScenario:
        if self.input_data is None:
            return RandomScenario(
                batch_size=self.batch_size,
                distinct=self.distinct,
                seed=self.seed,
                shapes=dict(parse_shape(text) for text in self.shapes),
                ranges=dict(parse_range(text) for text in self.ranges),
                omit=frozenset(self.omitted),
            )
        if self.shapes or self.ranges or self.omitted:
            raise PlanError("--shape, --range and --omit describe random inputs; --input-data brings its own")
        return FileScenario(path=self.input_data, batch_size=self.batch_size)

    def _price(self) -> CpuPrice | None:
        if self.price_per_cpu_hour is None:
            return None
        if self.metrics_url is None and self.server_pid is None:
            raise PlanError("a cost needs the server's CPU time: give --metrics-url or --server-pid")
        return CpuPrice(per_cpu_hour=self.price_per_cpu_hour, currency=self.currency)


@contextmanager
def _progress(*, shown: bool) -> Iterator[OnProgress | None]:
    if not shown:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # On standard error, so that the report can be piped; gone when done.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def update(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total)
            bars.update(tasks[phase], completed=done)

        yield update
