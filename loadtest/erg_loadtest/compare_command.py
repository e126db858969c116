"""`erg load compare A.json B.json`: runs against the first of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from erg_loadtest.compare import Comparison, Contrast, compare, ratio_text, sentence
from erg_loadtest.document import FORMAT, RunDocument, labelled, read_json
from erg_loadtest.errors import LoadTestError, PlanError
from erg_loadtest.figure_text import TITLES, full_text
from erg_loadtest.page import Picture, Table, charts, heading, page, paragraph, write_text
from erg_loadtest.pictures import latency_distribution
from erg_loadtest.report_options import UsageFailure
from erg_loadtest.run_page import made_with
from erg_loadtest.svg import Bar, bars, printable
from erg_loadtest.terminal import rich_table

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("compare")
@click.argument("documents", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Compare runs of different load, or invalid ones, and say so.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--output", type=_FILE, help="Write the comparison as JSON here.")
@click.option("--report", type=_FILE, help="Write it as a page here.")
def compare_runs(
    documents: tuple[Path, ...], *, force: bool, form: str, output: Path | None, report: Path | None
) -> None:
    """Say which of the runs in DOCUMENTS is cheaper than the first, by how much, and whether that is real.

    DOCUMENTS are files that `erg load --output` wrote. Exit code 2 when they cannot be compared.
    """
    try:
        runs = labelled([run for path in documents for run in _read(path)])
        if len(runs) < 2:
            raise PlanError("comparing takes two runs at least")
        found = [compare(runs[0], run, force=force) for run in runs[1:]]
        whole = {"format": FORMAT, "kind": "compare", "comparisons": [each.to_json() for each in found]}
        if output is not None:
            write_text(output, json.dumps(whole, allow_nan=False) + "\n")
        if report is not None:
            write_text(report, compare_page(runs, found))
    except LoadTestError as error:
        raise UsageFailure(str(error)) from error
    if form == "json":
        click.echo(json.dumps(whole, indent=2))
        return
    console = Console()
    for each in found:
        console.print(rich_table(contrast_table(each), f"{each.second} against {each.first}"))
        for text in (sentence(each), *each.notes, *each.forced):
            console.print(Text(printable(text), style="bold" if text == sentence(each) else "yellow"))


def compare_page(runs: Sequence[RunDocument], found: Sequence[Comparison]) -> str:
    """The comparison as a page."""
    parts = [heading(f"{' and '.join(run.label for run in runs)}: load tests compared", 1)]
    for each in found:
        parts.append(paragraph(sentence(each), "lead"))
        parts += [paragraph(text, "bad") for text in (*each.forced, *each.notes)]
    parts += [heading("Pictures"), charts([*(_forest(each) for each in found), latency_distribution(runs)])]
    for each in found:
        parts += [heading(f"{each.second} against {each.first}"), contrast_table(each).html()]
    for run in runs:
        parts += [heading(f"Made with: {run.label}"), *made_with(run)]
    return page("Load tests compared", parts)


def contrast_table(comparison: Comparison) -> Table:
    """A row a figure; the one that decides stands out."""
    rows = [
        [
            TITLES[each.name], full_text(each.first, "\n"), full_text(each.second, "\n"),
            ratio_text(each.ratio) or each.note, "" if each.note else each.verdict,
        ]
        for each in comparison.contrasts
    ]  # fmt: skip
    decisive = [index for index, each in enumerate(comparison.contrasts) if each.name == comparison.price]
    return Table(
        headings=("", comparison.first, comparison.second, "change", "real?"),
        rows=rows,
        numbers=frozenset({1, 2, 3}),
        chosen=decisive[0] if decisive else None,
    )


def _forest(comparison: Comparison) -> Picture:
    shown = [each for each in comparison.contrasts if each.ratio is not None]
    return Picture(
        title=f"{comparison.second} over {comparison.first}",
        svg=bars(
            f"{comparison.second} over {comparison.first}",
            "The ratio of each figure with its 95 % interval; where it holds the dashed line of 1, chance explains it.",
            [_bar(each) for each in shown],
            guide=1.0,
        ),
        table=contrast_table(comparison),
        note="Left of the dashed line is less than the first run's. An interval that crosses it may be chance.",
    )


def _bar(contrast: Contrast) -> Bar:
    assert contrast.ratio is not None
    colours = {"less": 0, "more": 1, "cannot tell": 4}
    return Bar(
        label=TITLES[contrast.name],
        value=contrast.ratio.value,
        text=f"{(contrast.ratio.value - 1) * 100:+.1f} %" + (" (modelled)" if contrast.modelled else ""),
        low=contrast.ratio.low,
        high=contrast.ratio.high,
        colour=colours[contrast.verdict],
    )


def _read(path: Path) -> list[RunDocument]:
    document: Any = read_json(path)
    if document.get("kind") in {"sweep", "search"}:
        entries = document.get("runs")
        if not isinstance(entries, list):
            raise PlanError(f"{path}: not a whole document")
        return [RunDocument.from_json(entry, str(path)) for entry in entries]
    return [RunDocument.from_json(document, str(path))]
