"""Documents on a terminal: every figure with its interval, energy and money by account, and the indices."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from erg_loadtest.document import RunDocument
from erg_loadtest.indices import Indices, hints
from erg_loadtest.page import Table as PlainTable
from erg_loadtest.pictures import UNKNOWN, account_table, figure_table
from erg_loadtest.svg import number, printable


def render_document(run: RunDocument, found: Indices | None = None) -> RenderableType:
    """What `report.render` leaves out of a run."""
    table = figure_table(run)
    known = [row[:3] for row in table.rows if row[1] != UNKNOWN]
    parts: list[RenderableType] = [
        rich_table(PlainTable(headings=table.headings[:3], rows=known, numbers=table.numbers), "Figures")
    ]
    reasons: dict[str, list[str]] = {}
    for name, value, _, reason in table.rows:
        if value == UNKNOWN:
            reasons.setdefault(reason, []).append(name)
    parts += [Text(f"Unknown: {'; '.join(names)}: {reason}") for reason, names in reasons.items()]
    if run.energy is not None:
        parts.append(rich_table(account_table(run.energy.accounts, "J"), f"Energy, source {run.power_source}"))
    if run.money is not None:
        parts.append(rich_table(account_table(run.money.accounts, "USD"), f"Cost, of {run.money.counter}"))
    if found is not None:
        parts += [index_table(run.label, found), Text(hints(found))]
    return Group(*parts)


def index_table(label: str, found: Indices) -> Table:
    """The two indices and the ratios that they are made of."""
    rows = [
        ["inference cost (less is better)", _shown(found.inference_cost), found.source],
        ["training efficiency (more is better)", _shown(found.training_efficiency), "as stated"],
        *([f"{name} over the baseline's", number(value), ""] for name, value in found.ratios.items()),
    ]
    weights = ", ".join(f"{name} {weight:g}" for name, weight in found.weights.items())
    return rich_table(
        PlainTable(headings=("", label, "source"), rows=rows, numbers=frozenset({1})),
        f"Indices against {found.baseline}, weights {weights}",
    )


def rich_table(table: PlainTable, title: str) -> Table:
    """A page's table for a terminal. Cells are text: rich's markup in a model's name means nothing."""
    shown = Table(title=Text(printable(title)), title_justify="left")
    for index, heading in enumerate(table.headings):
        justify: JustifyMethod = "right" if index in table.numbers else "left"
        shown.add_column(Text(printable(heading)), justify=justify, overflow="fold")
    for index, row in enumerate(table.rows):
        shown.add_row(*_cells(row), style="bold" if index == table.chosen else None)
    return shown


def _cells(row: Sequence[str]) -> list[Text]:
    return [Text(printable(cell)) for cell in row]


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)
