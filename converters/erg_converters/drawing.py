"""Draws a report for people, after a run: a picture, and a page that holds it."""

from __future__ import annotations

from pathlib import Path

from erg_converters.report import Report


def draw_report(report: Report, folder: Path) -> None:
    """Write the front as PNG and everything as one HTML file beside the report."""
    from erg_converters.html import write_html  # noqa: PLC0415  # matplotlib takes a second to import
    from erg_converters.plots import draw_front  # noqa: PLC0415

    draw_front(report, folder / "front.png")
    write_html(report, folder / "report.html")
