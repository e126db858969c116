"""Holds two reports against each other: what each candidate costs and loses, before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rich.table import Table

from erg_converters.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One candidate in one report. `speedup` is the source's CPU time over its own, geometric mean over the shapes."""

    status: str
    speedup: float | None
    drop: float | None
    cosine: float | None
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """One candidate in both reports; None where one lacks it."""

    name: str
    one: Side | None
    other: Side | None


def compared_rows(one: Report, other: Report) -> tuple[ComparedRow, ...]:
    """Every candidate of either report, in the order of the first, then of the second."""
    names = dict.fromkeys([*(each.name for each in one.candidates), *(each.name for each in other.candidates)])
    return tuple(ComparedRow(name=name, one=_side(one, name), other=_side(other, name)) for name in names)


def compared_table(one: Report, other: Report) -> Table:
    """The rows for a terminal: before → after."""
    table = Table(title=f"{one.model} ({one.created or '?'}) → {other.model} ({other.created or '?'})")
    for heading in ("candidate", "status", "speed-up", "drop", "cosine", "MB"):
        table.add_column(heading)
    for row in compared_rows(one, other):
        sides = (row.one, row.other)
        chosen = [("*" if report.chosen == row.name else "") for report in (one, other)]
        table.add_row(
            row.name,
            _change(*(f"{side.status}{mark}" if side else "-" for side, mark in zip(sides, chosen, strict=True))),
            _change(*(_number(side.speedup if side else None, "{:.2f}") for side in sides)),
            _change(*(_number(side.drop if side else None, "{:+.4f}") for side in sides)),
            _change(*(_number(side.cosine if side else None, "{:.5f}") for side in sides)),
            _change(*(_number(side.bytes / 1e6 if side else None, "{:.1f}") for side in sides)),
        )
    if one.evaluation_sha256 != other.evaluation_sha256:
        table.caption = "the reports were evaluated on different data: their drops do not compare"
    elif one.device != other.device:
        table.caption = "the reports were measured on different processors: their speed-ups do not compare"
    else:
        table.caption = "* is served; speed-up is the source's CPU time over the candidate's, geometric mean"
    return table


def _side(report: Report, name: str) -> Side | None:
    candidate = report.candidate(name)
    if candidate is None:
        return None
    ratios = [each.cpu_ratio for each in report.measurements if each.variant == name and each.cpu_ratio]
    return Side(
        status=candidate.status,
        speedup=math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None,
        drop=candidate.accuracy.drop if candidate.accuracy else None,
        cosine=candidate.gate.cosine_mean if candidate.gate else None,
        bytes=candidate.bytes,
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"
