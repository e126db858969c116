"""Figures as CSV, one row a figure, so that runs can be put under one another."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from erg_loadtest.document import RunDocument
from erg_loadtest.figure import Figure

HEADINGS = (
    "run", "model", "version", "load", "started", "valid", "figure", "value", "low", "high", "confidence", "unit",
    "source", "method", "note",
)  # fmt: skip


def to_csv(runs: Sequence[RunDocument]) -> str:
    """The table with its heading; what is missing is a row without a value whose note says why."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADINGS)
    for run in runs:
        start = [_safe(run.label), _safe(run.model), _safe(run.version), _safe(run.load), run.started, run.valid]
        for name, figure in run.figures.items():
            writer.writerow([*start, name, *_cells(figure)])
        for use, unit in ((run.energy, "joules"), (run.money, "usd")):
            for account in () if use is None else use.accounts:
                name = "/".join(each for each in (unit, account.name, account.component, account.model) if each)
                writer.writerow([*start, _safe(name), *_cells(account.per_1000)])
        for name, reason in run.missing.items():
            writer.writerow([*start, name, "", "", "", "", "", "", "", _safe(reason)])
    return text.getvalue()


def _cells(figure: Figure) -> list[object]:
    bounds = ["" if bound is None else repr(bound) for bound in (figure.value, figure.low, figure.high)]
    return [*bounds, figure.confidence, figure.unit, figure.source, figure.method, figure.note]


def _safe(text: str) -> str:
    # A spreadsheet would run a cell that begins so as a formula, and a model's name is anybody's.
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
