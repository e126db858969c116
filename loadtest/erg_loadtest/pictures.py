"""What of runs is drawn: each with its numbers in a table. Pure: documents in, pictures out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from erg_loadtest.consumption import Account, Use
from erg_loadtest.document import RunDocument
from erg_loadtest.figure import Figure
from erg_loadtest.figure_text import TITLES, full_text, value_text
from erg_loadtest.page import Picture, Table
from erg_loadtest.svg import Axis, Bar, Point, Series, bars, chart, number

_NINES = ((0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99"), (0.99999, "99.999"))
_SHOWN_SHARES = (0.5, 0.9, 0.95, 0.99, 0.999, 0.9999)
_ACCOUNT_ROWS = 12
UNKNOWN = "unknown"


def latency_distribution(runs: Sequence[RunDocument]) -> Picture:
    """The latency within which each share was answered, the tail to the scale of its nines."""
    series = [
        Series(
            name=run.label,
            points=[Point(x=_nines(share), y=ms) for share, ms in run.tail],
            kind="steps",
            colour=index,
        )
        for index, run in enumerate(runs)
        if run.tail
    ]
    most = max((point.x for each in series for point in each.points), default=0.0)
    rows = [
        [run.label, *(number(_within(run, share)) for share in _SHOWN_SHARES)] for run in runs if run.tail
    ]  # fmt: skip
    return Picture(
        title="Latency distribution",
        svg=chart(
            "Latency distribution",
            "Milliseconds within which each share of requests was answered, counted from when each was due.",
            Axis(label="percentile", ticks=[(_nines(at), text) for at, text in _NINES if _nines(at) <= most + 0.3]),
            Axis(label="latency, ms", log=_wide([point.y for each in series for point in each.points])),
            series,
        ),
        table=Table(
            headings=("run", *(f"p{share * 100:g} ms" for share in _SHOWN_SHARES)),
            rows=rows,
            numbers=frozenset(range(1, len(_SHOWN_SHARES) + 1)),
        ),
    )


def batch_sizes(run: RunDocument) -> Picture:
    """Executions by their rows, as the server counted them."""
    total = sum(run.batches.values()) or 1
    points = [Point(x=size, y=100 * count / total) for size, count in sorted(run.batches.items())]
    rows = [[str(size), f"{count:,}", f"{100 * count / total:.1f}"] for size, count in sorted(run.batches.items())]
    return Picture(
        title="Batch sizes",
        svg=chart(
            "Batch sizes",
            "Share of the model's executions by the rows in them.",
            Axis(label="rows in an execution", ticks=[(size, str(size)) for size in sorted(run.batches)]),
            Axis(label="% of executions", from_zero=True),
            [Series(name="executions", points=points, kind="columns")],
        ),
        table=Table(headings=("rows", "executions", "%"), rows=rows, numbers=frozenset({0, 1, 2})),
    )


def timeline(run: RunDocument) -> tuple[Picture, Picture]:
    """Answers and failures a second, and latency, by the second."""
    table = Table(
        headings=("from s", "answered", "failed", "p50 ms", "p99 ms"),
        rows=[
            [
                number(bucket.start_s), str(bucket.requests), str(bucket.failures),
                "" if bucket.p50_us is None else number(bucket.p50_us / 1e3),
                "" if bucket.p99_us is None else number(bucket.p99_us / 1e3),
            ]
            for bucket in run.timeline
        ],
        numbers=frozenset(range(5)),
    )  # fmt: skip
    # The last bucket may be a sliver, of which a rate says nothing.
    whole = [bucket for bucket in run.timeline if bucket.seconds > 0.5 * run.timeline[0].seconds]
    rates = [Series(name="answered", points=[Point(x=b.start_s, y=b.requests / b.seconds) for b in whole])]
    if any(bucket.failures for bucket in run.timeline):
        failed = [Point(x=bucket.start_s, y=bucket.failures / bucket.seconds) for bucket in whole]
        rates.append(Series(name="failed", points=failed, colour=1))
    latencies = [
        Series(name="p50", points=[Point(x=b.start_s, y=b.p50_us / 1e3) for b in run.timeline if b.p50_us is not None]),
        Series(
            name="p99",
            points=[Point(x=b.start_s, y=b.p99_us / 1e3) for b in run.timeline if b.p99_us is not None],
            colour=1,
        ),
    ]
    seconds = Axis(label="seconds from the start")
    return (
        Picture(
            title="Requests over time",
            svg=chart(
                "Requests over time",
                "Requests answered, and failed if any, in each second.",
                seconds,
                Axis(label="requests a second", from_zero=True),
                rates,
            ),
            table=table,
        ),
        Picture(
            title="Latency over time",
            svg=chart(
                "Latency over time",
                "Median and 99th percentile of the latency of requests answered in each second.",
                seconds,
                Axis(label="latency, ms", from_zero=True),
                latencies,
            ),
            table=table,
        ),
    )


def account_pictures(run: RunDocument) -> tuple[Picture, Picture]:
    """Energy and money of 1,000 inferences by account."""
    return _accounts(run, run.energy, "Energy of 1,000 inferences", "J"), _accounts(
        run, run.money, "Cost of 1,000 inferences", "USD"
    )


def latency_against_load(runs: Sequence[RunDocument], objective_ms: float | None = None) -> Picture:
    """p50 and p99 against the rate that was answered; of more than two variants p99 alone."""
    shown = [run for run in runs if "inferences_per_s" in run.figures and "latency_p99_us" in run.figures]
    variants = list(dict.fromkeys(run.variant for run in shown))
    # Two lines each while they can be told apart.
    lines = ("latency_p50_us", "latency_p99_us") if len(variants) <= 2 else ("latency_p99_us",)
    series = []
    for index, variant in enumerate(variants):
        own = sorted((run for run in shown if run.variant == variant), key=_rate)
        for place, name in enumerate(lines):
            title = TITLES[name].removeprefix("latency ")
            series.append(
                Series(
                    name=title if len(variants) == 1 else f"{variant} {title}",
                    points=[_latency_point(run, name) for run in own],
                    colour=len(lines) * index + place,
                )
            )
    rows = [
        [
            run.label,
            *(full_text(run.figures[name]) for name in ("inferences_per_s", "latency_p50_us", "latency_p99_us")),
        ]
        for run in shown
    ]
    heights = [point.y for each in series for point in each.points]
    return Picture(
        title="Latency against rate",
        svg=""
        if len(shown) < 2
        else chart(
            "Latency against rate",
            "Median and 99th percentile of the latency against inferences answered a second, with their intervals.",
            Axis(label="inferences a second", log=_wide([point.x for each in series for point in each.points])),
            Axis(label="latency, ms", log=_wide(heights), guide=objective_ms),
            series,
        ),
        table=Table(headings=("run", "throughput", "p50", "p99"), rows=rows),
        note="" if objective_ms is None else f"The dashed line is the objective, p99 of {objective_ms:g} ms.",
    )


def _rate(run: RunDocument) -> float:
    return run.figures["inferences_per_s"].value


def _latency_point(run: RunDocument, kind: str) -> Point:
    found = run.figures[kind]
    return Point(
        x=run.figures["inferences_per_s"].value,
        y=found.value / 1e3,
        low=None if found.low is None else found.low / 1e3,
        high=None if found.high is None else found.high / 1e3,
    )


def _accounts(run: RunDocument, use: Use | None, title: str, unit: str) -> Picture:
    accounts = () if use is None else use.accounts[:_ACCOUNT_ROWS]
    colours = {"model": 0, "shared": 2, "other model": 3}
    rows = [
        Bar(
            label=account_name(account),
            value=account.per_1000.value,
            text=_short_value(account.per_1000, unit),
            low=account.per_1000.low,
            high=account.per_1000.high,
            colour=colours[account.scope],
            striped=account.per_1000.source == "modelled",
        )
        for account in accounts
    ]
    source = "" if use is None else f"Source: {', '.join(use.sources)} ({use.counter})."
    return Picture(
        title=title,
        svg=bars(title, f"{unit} for each 1,000 inferences of {run.model}, by account, with intervals.", rows),
        table=account_table(accounts, unit),
        note=source + (" Faint bars are modelled." if any(row.striped for row in rows) else ""),
    )


def account_table(accounts: Sequence[Account], unit: str) -> Table:
    """Accounts with their totals and what 1,000 inferences take of each."""
    return Table(
        headings=("account", "whose", unit, f"{unit} per 1,000", "source"),
        rows=[
            [
                account_name(account), f"{account.scope} {account.model}".strip(), number(account.total),
                full_text(account.per_1000).replace(f" {account.per_1000.unit}", "", 1), account.per_1000.source,
            ]
            for account in accounts
        ],
        numbers=frozenset({2}),
    )  # fmt: skip


def account_name(account: Account) -> str:
    """An account, what it paid for, and another model's name."""
    name = f"{account.name or 'unnamed'}, {account.component}" if account.component else account.name or "unnamed"
    return f"{name} of {account.model}" if account.scope == "other model" else name


def figure_table(run: RunDocument) -> Table:
    """Every figure with its interval and how it was come by, and why others are missing."""
    rows = [
        [TITLES[name], value_text(found), bounds, found.method or found.note]
        for name in TITLES
        if (found := run.figures.get(name)) is not None
        for bounds in [full_text(found)[len(value_text(found)) :].strip()]
    ]
    rows += [[TITLES.get(name, name), UNKNOWN, "", reason] for name, reason in run.missing.items()]
    return Table(headings=("", "value", "95 % interval", "how"), rows=rows, numbers=frozenset({1, 2}))


def _short_value(figure: Figure, unit: str) -> str:
    return f"{number(figure.value)} {unit}" + (" (modelled)" if figure.source == "modelled" else "")


def _within(run: RunDocument, share: float) -> float:
    return next((ms for at, ms in run.tail if at >= share - 1e-12), run.tail[-1][1])


def _nines(share: float) -> float:
    return -math.log10(1 - share)


def _wide(values: Sequence[float]) -> bool:
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > 30 * min(positive)
