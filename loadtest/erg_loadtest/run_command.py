"""`erg load MODEL`: one load test from the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from erg_loadtest.arrivals import Arrivals, ClosedLoop, ConstantRate, Limit, PoissonRate
from erg_loadtest.client import Target
from erg_loadtest.cost import CpuPrice
from erg_loadtest.document import run_document
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.live import progress as live_progress
from erg_loadtest.load import FileScenario, LoadPlan, run_load
from erg_loadtest.plots import save_latency_plot
from erg_loadtest.report import render
from erg_loadtest.report_options import ReportOptions, UsageFailure, command_line, report_options
from erg_loadtest.run_page import run_page
from erg_loadtest.scenarios import RandomScenario, parse_range, parse_shape
from erg_loadtest.terminal import render_document

_CLOSED_LOOP_DEFAULT = 8
_DURATION_DEFAULT_S = 10.0


@click.command("run")
@click.argument("model")
@click.option("-u", "--url", default="127.0.0.1:8001", show_default=True, help="The server's gRPC address, HOST:PORT.")
@click.option("-x", "--model-version", default="", help="Version to call; the server chooses when left out.")
@click.option("--concurrency", type=int, help="Closed loop: callers, each with one request in flight.  [default: 8]")
@click.option("--request-rate", type=float, help="Open loop: requests a second, sent when due, answered or not.")
@click.option(
    "--request-distribution",
    type=click.Choice(["poisson", "constant"]),
    default="poisson",
    show_default=True,
    help="How an open loop spaces its requests.",
)
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
@report_options
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a .png of the latencies here.")
def run(
    *,
    form: str,
    plot: Path | None,
    **options: Any,
) -> None:
    """Load MODEL on a v2 gRPC server and say what it did.

    Exit code 0 when every request was answered, 1 when any failed, 2 when the test could not run.
    """
    console = Console()
    reports = ReportOptions.taken(options)
    try:
        plan = _Options(**options).plan()
        reports.check()
        with live_progress(shown=form == "table") as progress:
            result = run_load(plan, progress=progress)
        document = run_document(plan, result, command=command_line(), quality=reports.quality(result.model))
        found, baseline = reports.indices(document), reports.baseline_parts()
        whole = document.to_json() | {"indices": None if found is None else found.to_json()}
        reports.write(
            [document],
            lambda: whole | {"latencies_ns": result.latencies_ns.tolist()},
            lambda: run_page(document, found, baseline),
        )
        if plot is not None:
            save_latency_plot(plot, {f"{result.model}": result})
    except LoadTestError as error:
        raise UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(whole, indent=2))
    else:
        console.print(render(result))
        console.print(render_document(document, found))
    if result.failed or not result.succeeded:
        raise SystemExit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """The flags that say what to do, as click has parsed them."""

    model: str
    url: str
    model_version: str
    concurrency: int | None
    request_rate: float | None
    request_distribution: str
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
        if duration_s is None and self.request_count is None:
            duration_s = _DURATION_DEFAULT_S
        return LoadPlan(
            model=self.model,
            version=self.model_version,
            target=Target(url=self.url, connections=self.connections, timeout_s=self.client_timeout),
            arrivals=self._arrivals(),
            limit=Limit(requests=self.request_count, duration_s=duration_s),
            warmup=Limit(requests=self.warmup_request_count) if self.warmup_request_count else None,
            scenario=self._scenario(),
            processes=self.processes,
            metrics_url=self.metrics_url,
            server_pid=self.server_pid,
            price=self._price(),
        )

    def _arrivals(self) -> Arrivals:
        if self.request_rate is None:
            return ClosedLoop(concurrency=_CLOSED_LOOP_DEFAULT if self.concurrency is None else self.concurrency)
        if self.concurrency is not None:
            raise PlanError("--concurrency makes a closed loop and --request-rate an open one: give one of them")
        if self.request_distribution == "constant":
            return ConstantRate(rate_per_s=self.request_rate)
        return PoissonRate(rate_per_s=self.request_rate, seed=self.seed)

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


def plan_of(options: dict[str, Any]) -> LoadPlan:
    """The plan that this command's options describe, for other commands that take them too; raises PlanError."""
    return _Options(**options).plan()
