"""A search as a page. Pure: trials in, HTML out."""

from __future__ import annotations

from collections.abc import Sequence

from erg_loadtest.document import RunDocument
from erg_loadtest.intervals import Interval
from erg_loadtest.objective import PERCENTILE, Objective
from erg_loadtest.page import Picture, Table, charts, heading, page, paragraph
from erg_loadtest.pictures import figure_table, latency_against_load
from erg_loadtest.rate_search import Found, Trial, judgements
from erg_loadtest.run_page import made_with, run_charts, summary
from erg_loadtest.svg import Axis, Point, Series, chart, number


def search_page(objective: Objective, found: Found, trials: Sequence[Trial], runs: Sequence[RunDocument]) -> str:
    """The page; the pictures of a single run are of the highest rate that holds, else of the last one."""
    if not runs:
        return page("Search", [heading("No step was run", 1)])
    shown = next((run for run in reversed(runs) if run.label == f"{found.holds_per_s or 0:g}/s"), runs[-1])
    longest = list({run.label: run for run in runs}.values())
    return page(
        f"{runs[0].model}: highest rate",
        [
            heading(f"{runs[0].model}: highest rate", 1),
            paragraph(f"{runs[0].url} · {runs[0].started} · power source: {runs[0].power_source}", "soft"),
            paragraph(found_text(objective, found), "lead"),
            charts([latency_against_load(longest, objective.p99_ms), _in_time(objective, trials)]),
            heading("Steps"),
            steps_table(objective, trials, found.holds_per_s).html(),
            heading(f"At {shown.label}"),
            *summary(shown),
            run_charts(shown),
            figure_table(shown).html(),
            heading("Made with"),
            *made_with(shown),
        ],
    )


def found_text(objective: Objective, found: Found) -> str:
    """The outcome in words."""
    if found.holds_per_s is None:
        return f"No rate was found at which {objective} holds: {found.reason}."
    beyond = "" if found.fails_per_s is None else f", and {found.fails_per_s:g} does not"
    return f"{found.holds_per_s:g} requests a second hold {objective}{beyond}: {found.reason}."


def steps_table(objective: Objective, trials: Sequence[Trial], holds_per_s: float | None = None) -> Table:
    """Every rate with what its trials said together."""
    judged = judgements(objective, trials)
    rows = [
        [
            f"{each.rate_per_s:g}", f"{each.seconds:.1f}", _share(each.judgement.in_time),
            _share(each.judgement.success), each.judgement.verdict,
        ]
        for each in judged
    ]  # fmt: skip
    chosen = [index for index, each in enumerate(judged) if each.rate_per_s == holds_per_s]
    return Table(
        headings=("requests/s", "seconds", f"answered within {objective.p99_ms:g} ms", "success", "objective"),
        rows=rows,
        numbers=frozenset({0, 1, 2, 3}),
        chosen=chosen[0] if chosen else None,
    )


def _in_time(objective: Objective, trials: Sequence[Trial]) -> Picture:
    points = [
        Point(
            x=each.rate_per_s, y=100 * found.value, low=_percent(found.low), high=_percent(found.high),
            hollow=each.judgement.verdict != "holds",
        )
        for each in judgements(objective, trials)
        if (found := each.judgement.in_time) is not None
    ]  # fmt: skip
    return Picture(
        title="Answers in time against rate",
        svg=chart(
            "Answers in time against rate",
            f"Share of answers within {objective.p99_ms:g} ms with its interval; filled where the objective holds.",
            Axis(label="requests a second", log=len(points) > 1 and points[-1].x > 30 * points[0].x),
            Axis(label="% within the objective", guide=100 * PERCENTILE),
            [Series(name="in time", kind="dots", points=points)],
        ),
        table=steps_table(objective, trials),
        note=f"The dashed line is {100 * PERCENTILE:g} %. Filled points hold the objective.",
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _share(found: Interval | None) -> str:
    if found is None:
        return "unknown"
    low, high = (number(100 * (bound or 0.0)) for bound in (found.low, found.high))
    return f"{100 * found.value:.2f} % [{low}, {high}]"
