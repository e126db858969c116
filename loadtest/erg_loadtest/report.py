"""A result for people: tables on a terminal. Every figure says what it is of; a missing one says why."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from erg_loadtest.arrivals import ClosedLoop, describe
from erg_loadtest.result import LoadResult
from erg_loadtest.samples import DurationSummary
from erg_loadtest.svg import printable

_MAX_BATCH_SIZES = 12
_CPU_STEP_S = 0.01
INVALID = "Invalid: "
"""What a warning begins with that tells why a run is invalid."""
_CPU_ERROR_SHARE = 0.02


def render(result: LoadResult) -> RenderableType:
    """The whole report."""
    parts: list[RenderableType] = [_summary(result), _durations(result)]
    parts.extend(Text(warning, style="yellow") for warning in warnings(result))
    return Group(*parts)


def warnings(result: LoadResult) -> list[str]:
    """What a reader should know before believing the figures."""
    found = []
    if result.failed:
        refused = ", ".join(f"{name} {count:,}" for name, count in result.count_by_status.items() if name != "OK")
        found.append(f"{result.failed:,} of {result.requests:,} requests failed: {refused}")
    if result.wrong_answer is not None:
        found.append(f"A wrong answer: {result.wrong_answer}")
    if isinstance(result.arrivals, ClosedLoop) and result.latency is not None:
        found.append(
            "A closed loop slows down with the server: its latencies are not what users of a loaded server see "
            "(use --request-rate for those)."
        )
    found.extend(f"{INVALID}{reason}" for reason in result.validity.reasons)
    found.extend(result.validity.notes)
    if result.latency is not None and result.validity.unsupported_percentiles:
        names = ", ".join(f"p{percentile:g}" for percentile in result.validity.unsupported_percentiles)
        found.append(f"{result.latency.count:,} answers are too few for {names}: run longer for figures to rely on.")
    if not isinstance(result.cpu, str):
        # Each reading of each process may be off by one step of the kernel's counter.
        error_s = _CPU_STEP_S * (1 + len(result.cpu.by_worker_s))
        if error_s > _CPU_ERROR_SHARE * result.cpu.total_s:
            found.append(
                f"The server's CPU time ({result.cpu.total_s:.2f} s) is counted in steps of 10 ms a process: "
                "run longer for a figure to rely on."
            )
    return found


def _summary(result: LoadResult) -> Table:
    version = f" version {result.version}" if result.version else ""
    title = Text(printable(f"{result.model}{version} at {result.url}"))
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    table.add_row("load", f"{describe(result.arrivals)}, {result.connections} connections")
    table.add_row("requests", f"{result.succeeded:,} answered, {result.failed:,} failed, in {result.wall_s:.2f} s")
    table.add_row(
        "throughput", f"{result.inferences_per_s:,.1f} inferences a second ({result.requests_per_s:,.1f} requests)"
    )
    for name, value in _server_rows(result):
        table.add_row(name, value)
    busy = "" if result.client_loop_busy is None else f", event loop busy {result.client_loop_busy:.0%}"
    table.add_row("client CPU", f"{result.client_cpu_s:.2f} s{busy}")
    if result.mlperf is not None:
        reasons = "; ".join(result.mlperf.reasons)
        table.add_row("LoadGen", f"INVALID: {reasons}" if reasons else "VALID")
    table.add_row("valid", "yes" if result.validity.valid else "NO: the client was the limit, see below")
    if result.cost is not None:
        table.add_row(
            "cost of 1,000",
            f"{result.cost.per_1000:.3g} {result.cost.currency} "
            f"({result.cost.cpu_seconds_per_1000:.3g} CPU seconds, {result.cost.source})",
        )
    return table


def _server_rows(result: LoadResult) -> list[tuple[str, str]]:
    rows = []
    if isinstance(result.server, str):
        rows.append(("mean batch", f"unknown: {result.server}"))
    else:
        server = result.server
        sizes = ", ".join(f"{size}: {count:,}" for size, count in list(server.batches.items())[:_MAX_BATCH_SIZES])
        rows.append(
            (
                "mean batch",
                f"{server.mean_batch:.2f} rows in {server.executions:,} executions (rows: executions {sizes})",
            )
        )
        phases = (
            f"queue {format_us(server.queue_us)}, input {format_us(server.input_us)}, "
            f"infer {format_us(server.infer_us)}, output {format_us(server.output_us)} (means)"
        )
        rows.append(("server's own", phases))
    if isinstance(result.cpu, str):
        rows.append(("server CPU", f"unknown: {result.cpu}"))
        return rows
    total, front, workers = (
        result.cpu_us_per_inference,
        result.front_cpu_us_per_inference,
        result.workers_cpu_us_per_inference,
    )
    if total is not None and front is not None and workers is not None:
        split = f"front {format_us(front)}, workers {format_us(workers)}"
        rows.append(("server CPU", f"{format_us(total)} an inference: {split} ({result.cpu.source})"))
    if result.busy_by_worker:
        shares = ", ".join(f"{worker} {share:.0%}" for worker, share in sorted(result.busy_by_worker.items()))
        rows.append(("workers busy", shares))
    return rows


def _durations(result: LoadResult) -> Table:
    table = Table(title="Latency", title_justify="left")
    table.add_column("")
    for heading in ("count", "mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max"):
        table.add_column(heading, justify="right")
    for name, summary in (
        ("answered", result.latency),
        *result.latency_by_status.items(),
        ("from sending", result.service),
        ("send delay", result.send_delay),
    ):
        if summary is not None:
            table.add_row(name, *_cells(summary))
    return table


def _cells(summary: DurationSummary) -> tuple[str, ...]:
    percentiles = (summary.percentile_us(percentile) for percentile in (50.0, 90.0, 95.0, 99.0, 99.9))
    return (
        f"{summary.count:,}",
        format_us(summary.mean_us),
        format_us(summary.min_us),
        *(format_us(value) for value in percentiles),
        format_us(summary.max_us),
    )


def format_us(duration_us: float) -> str:
    """Microseconds in the unit that reads best."""
    if duration_us >= 1e6:
        return f"{duration_us / 1e6:.2f} s"
    if duration_us >= 1e3:
        return f"{duration_us / 1e3:.2f} ms"
    return f"{duration_us:.0f} µs"
