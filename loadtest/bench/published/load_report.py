"""What `erg load` said of several servers, beside each other."""

from __future__ import annotations

from collections.abc import Callable

from bench.published.figures import Record
from bench.published.markdown import UNKNOWN, Row, number, table


def report_text(record: Record) -> str:
    """The reports beside each other, and the commands."""
    commands = "\n".join(report.command for report in record.reports)
    rows: list[Row] = []
    for name, read in _REPORT_ROWS:
        rows.append((name, *(read(result_of(report.document)) for report in record.reports)))
    beside = table(("", *(report.server for report in record.reports)), rows)
    return (
        "The same program on servers that speak the same protocol; only the axis of the batch is written out for a "
        f"server without a model configuration.\n\n```\n{commands}\n```\n\n{beside}"
    )


def result_of(document: dict[str, object]) -> dict[str, object]:
    """The part of `erg load`'s document that says what the run gave."""
    result = document["result"]
    assert isinstance(result, dict)
    return result


def _latency(document: dict[str, object], percentile: str) -> str:
    latency = document.get("latency")
    if not isinstance(latency, dict):
        return UNKNOWN
    return number(float(latency["percentiles_us"][percentile]) / 1e3)


def _server_cpu(document: dict[str, object]) -> str:
    cpu = document.get("server_cpu")
    if not isinstance(cpu, dict) or cpu.get("us_per_inference") is None:
        return f"unknown: {cpu.get('missing', '')}" if isinstance(cpu, dict) else UNKNOWN
    front, workers = cpu["front_us_per_inference"], cpu["workers_us_per_inference"]
    return f"{number(cpu['us_per_inference'])} ({number(front)} + {number(workers)})"


def _mean_batch(document: dict[str, object]) -> str:
    server = document.get("server")
    if not isinstance(server, dict):
        return UNKNOWN
    return number(server["mean_batch"]) if "mean_batch" in server else f"unknown: {server.get('missing', '')}"


_REPORT_ROWS: tuple[tuple[str, Callable[[dict[str, object]], str]], ...] = (
    ("load", lambda document: str(document["description"])),
    ("answered, failed", lambda document: f"{document['succeeded']:,}, {document['failed']:,}"),
    ("inferences a second", lambda document: number(float(str(document["inferences_per_s"])))),
    ("latency p50, ms", lambda document: _latency(document, "p50")),
    ("latency p99, ms", lambda document: _latency(document, "p99")),
    ("server CPU µs (front + workers)", _server_cpu),
    ("mean batch, by the server's statistics", _mean_batch),
    ("client CPU s", lambda document: number(float(str(document["client_cpu_s"])))),
)
