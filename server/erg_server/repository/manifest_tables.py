"""A manifest's results as tables for people: the artifacts, what they lose, what they cost, and the verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from erg_server.repository.manifest import Accuracy, Artifact, Manifest, Measurement, Verdict

_ARTIFACT_COLUMNS = ("artifact", "file", "backend", "precision", "parameters", "rows a batch", "MB", "served on")
_ACCURACY_COLUMNS = ("variant", "metric", "value", "source", "drop", "samples")
_MEASUREMENT_COLUMNS = (
    "variant", "device", "backend", "batch", "length", "threads", "CPU ms a row", "cheaper", "p50 ms", "rows/s",
)  # fmt: skip
_VERDICT_COLUMNS = ("variant", "device", "batch", "length", "verdict", "reason")
_VERDICT_STYLES = {"worth it": "green", "not worth it": "yellow", "refused": "red"}


def result_tables(manifest: Manifest, backends: Collection[str]) -> Iterator[tuple[str, Table]]:
    """The tables that have a row, with their titles. `backends` are those that can be used here."""
    if manifest.artifacts:
        rows = [_artifact(each, manifest, backends) for each in manifest.artifacts]
        yield "Artifacts", _table(_ARTIFACT_COLUMNS, rows)
    if manifest.accuracy:
        yield "Accuracy, with its interval", _table(_ACCURACY_COLUMNS, [_accuracy(each) for each in manifest.accuracy])
    if manifest.measurements:
        yield "Measurements", _table(_MEASUREMENT_COLUMNS, [_measurement(each) for each in manifest.measurements])
    if manifest.verdicts:
        yield "Verdicts", _table(_VERDICT_COLUMNS, [_verdict(each) for each in manifest.verdicts])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Never read as markup: names and reasons are whatever the manifest has.
        table.add_row(*(Text(cell, _VERDICT_STYLES.get(cell, "")) for cell in row))
    return table


def _artifact(artifact: Artifact, manifest: Manifest, backends: Collection[str]) -> tuple[str, ...]:
    places: list[str] = []
    for device in ("cpu", "gpu"):
        order = [each.artifact for each in manifest.selected if each.device == device]
        if artifact.name in order:
            places.append(f"{device} (choice {order.index(artifact.name) + 1})")
    absent = artifact.backend not in backends
    return (
        artifact.name,
        artifact.file,
        f"{artifact.backend} (not installed)" if absent else artifact.backend,
        artifact.precision,
        ", ".join(f"{key}={value}" for key, value in artifact.parameters.items()),
        "" if artifact.batch_limit is None else f"at most {artifact.batch_limit}",
        f"{artifact.bytes / 1e6:.1f}" if artifact.bytes else "",
        ", ".join(places),
    )


def _accuracy(accuracy: Accuracy) -> tuple[str, ...]:
    drop = "" if accuracy.drop is None else f"{accuracy.drop:.4g}"
    if accuracy.drop_low is not None and accuracy.drop_high is not None:
        drop += f" [{accuracy.drop_low:.4g}, {accuracy.drop_high:.4g}]"
    return (
        accuracy.variant,
        accuracy.metric,
        f"{accuracy.value:.6g} [{accuracy.low:.6g}, {accuracy.high:.6g}] at {accuracy.confidence:.0%}",
        _figure(accuracy.baseline, ".6g"),
        drop,
        str(accuracy.samples),
    )


def _measurement(measurement: Measurement) -> tuple[str, ...]:
    precision = f" {measurement.precision}" if measurement.precision else ""
    return (
        measurement.variant,
        measurement.device,
        f"{measurement.backend}{precision}",
        str(measurement.batch_size),
        _figure(measurement.length, "d"),
        str(measurement.threads),
        _figure(measurement.cpu_ms_per_row, ".4g"),
        "" if measurement.cpu_ratio is None else f"{measurement.cpu_ratio:.2f} x",
        f"{measurement.latency_ms_p50:.4g}",
        f"{measurement.throughput_per_s:.4g}",
    )


def _verdict(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.variant,
        verdict.device,
        str(verdict.batch_size),
        _figure(verdict.length, "d"),
        verdict.verdict,
        verdict.reason,
    )


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
