"""Figures and tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from bench.published.figures import Spread

UNKNOWN = "–"  # noqa: RUF001 - an en dash for a figure that there is not

Row = Sequence[str]


def number(value: float) -> str:
    """Three figures that count, no more."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def with_range(found: Spread | None) -> str:
    """The median, and the least and the most where they differ."""
    if found is None:
        return UNKNOWN
    if found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} [{number(found.low)}, {number(found.high)}]"


def table(heading: Row, rows: Sequence[Row]) -> str:
    """A table; what is a column's border in a cell is escaped."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
