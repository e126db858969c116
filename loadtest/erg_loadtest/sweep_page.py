"""A sweep as a page. Pure: runs in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence

from erg_loadtest.document import RunDocument
from erg_loadtest.figure import Figure
from erg_loadtest.figure_text import TITLES, full_text, value_text
from erg_loadtest.indices import PARTS, UNITS, Indices, hints
from erg_loadtest.page import Picture, Table, charts, heading, page, paragraph
from erg_loadtest.pareto import Front, front_pictures, front_table
from erg_loadtest.pictures import figure_table, latency_against_load, latency_distribution
from erg_loadtest.run_page import made_with, run_charts, summary
from erg_loadtest.svg import clean, number

_SHOWN = (
    "inferences_per_s", "latency_p50_us", "latency_p99_us", "joules_per_1000", "joules_per_1000_whole", "usd_per_1000",
    "usd_per_1000_whole", "cpu_price_per_1000",
)  # fmt: skip
_MOST_LINES = 6


def sweep_page(runs: Sequence[RunDocument], best: Front, found: Sequence[Indices], p99_ms: float | None = None) -> str:
    """The page: the runs beside one another, the front, the indices, then each run."""
    models = ", ".join(dict.fromkeys(run.model for run in runs))
    lead = best.reason if best.chosen is None else f"{runs[best.chosen].label} is chosen: {best.reason}."
    parts = [
        heading(f"{models}: sweep of {len(runs)} runs", 1),
        paragraph(f"{runs[0].url} · {runs[0].started} · power source: {runs[0].power_source}", "soft"),
        paragraph(lead, "lead"),
        charts([latency_against_load(runs, p99_ms), _distributions(runs, best)]),
        heading("Runs"),
        runs_table(runs, best).html(),
        heading("Pareto front"),
        paragraph("A run is on the front unless another one is as good on every axis and better on one."),
        front_table(runs, best).html(),
        charts(front_pictures(runs, best)),
        heading("Indices"),
        paragraph(
            "Inference cost is the weighted mean of power, memory and inference time over the baseline's, divided by "
            "performance over the baseline's; less is better. Training efficiency is performance over training time, "
            f"each over the baseline's; more is better. Baseline: {found[0].baseline}."
        ),
        index_table(runs, found).html(),
        paragraph(hints(found[-1])) if hints(found[-1]) else "",
        heading("Each run"),
    ]
    for run in runs:
        inside = "".join([*summary(run), run_charts(run), figure_table(run).html()])
        parts.append(f"<details><summary>{clean(run.label)}</summary>{inside}</details>")
    parts += [heading("Made with"), *made_with(runs[0])]
    return page(f"{models}: sweep", parts)


def _distributions(runs: Sequence[RunDocument], best: Front) -> Picture:
    # Of many runs those on the front: more lines than colours tell nothing.
    shown = runs if len(runs) <= _MOST_LINES else [runs[index] for index in best.members[:_MOST_LINES]]
    return latency_distribution(shown)


def runs_table(runs: Sequence[RunDocument], best: Front) -> Table:
    """A row a run, with the figures that any of them has."""
    names = [name for name in _SHOWN if any(name in run.figures for run in runs)]
    # The whole machine's figure stands in where the model's own is not known of every run.
    owned = {f"{name}_whole" for name in names if all(name in run.figures for run in runs)}
    names = [name for name in names if name not in owned]
    rows = [
        [
            run.label + ("" if run.valid else " (invalid)"),
            *(_cell(run.figures.get(name)) for name in names),
        ]
        for run in runs
    ]
    units = {name: next(run.figures[name].unit for run in runs if name in run.figures) for name in names}
    return Table(
        headings=("run", *(TITLES[name] + _unit(units[name]) for name in names)),
        rows=rows,
        numbers=frozenset(range(1, len(names) + 1)),
        chosen=best.chosen,
    )


def _unit(unit: str) -> str:
    return "" if unit == "µs" else f", {unit}"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return "unknown"
    unit = "" if figure.unit == "µs" else f" {figure.unit}"
    text = full_text(figure, "\n")
    return text.replace(unit, "", 1) if unit else text


def index_table(runs: Sequence[RunDocument], found: Sequence[Indices]) -> Table:
    """Both indices of each run, and the raw parts."""
    rows = []
    for run, each in zip(runs, found, strict=True):
        parts = run.parts()
        mark = " (modelled)" if each.source == "modelled" and not isinstance(each.inference_cost, str) else ""
        raw = [_part(parts.part(name), UNITS[name]) for name in PARTS]
        others = ["unknown" if value is None else number(value) for value in (parts.performance, parts.training_s)]
        rows.append([run.label, _shown(each.inference_cost) + mark, _shown(each.training_efficiency), *raw, *others])
    headings = ("run", "inference cost", "training efficiency", *PARTS, "performance", "training, s")
    return Table(headings=headings, rows=rows, numbers=frozenset(range(3, 8)))


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def _part(value: float | None, unit: str) -> str:
    return "unknown" if value is None else value_text(Figure(value=value, unit=unit))
