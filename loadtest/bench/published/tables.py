"""The published benchmark as Markdown. Losses are said in the same words and places as wins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.published.figures import (
    CONVERTED,
    ERG,
    Record,
    Spread,
    Turn,
    modelled_joules_per_1000,
    of_raw,
    spread,
    times_erg,
    usd_per_1000,
)
from bench.published.load_report import report_text
from bench.published.markdown import UNKNOWN, Row, number, table, with_range
from bench.published.preamble import preamble

CLIENT_LIMIT_SHARE = 0.9


def section(record: Record, *, cpu_plot: str, latency_plot: str) -> str:
    """All of it. The plots are named as the page links to them."""
    parts = [preamble(record), _not_run(record)]
    if record.models():
        parts += [
            "### Erg against the others",
            _verdicts_intro(record),
            verdict_table(record),
            f"![CPU time a request by server, for each model and load]({cpu_plot})",
        ]
    for model in record.models():
        parts += [f"### {record.titles.get(model, model)}", model_table(record, model), _notes(record, model)]
    if record.models():
        parts += [f"![Requests a second and p99 latency by server]({latency_plot})"]
    if record.tried:
        parts += ["### What the rivals were set to", _tried_intro(record), tried_table(record)]
    if record.reports:
        parts += ["### `erg load` on both", report_text(record)]
    return "\n\n".join(part for part in parts if part)


def model_table(record: Record, model: str) -> str:
    """Every server under every load; medians with the least and the most of the rounds."""
    rows: list[Row] = []
    raw = record.raw_of(model)
    if raw:
        cost_us = spread(turn.cpu_us for turn in raw)
        assert cost_us is not None
        rate = with_range(spread(turn.requests_per_s for turn in raw))
        rows.append(
            ("ONNX Runtime alone", f"batch {raw[0].batch}", rate, with_range(cost_us), "1", "", "", "",
             *_money(record, cost_us.median))
        )  # fmt: skip
    for in_flight in record.loads:
        least = _least_cpu(record, model, in_flight)
        for server in record.servers(model):
            turns = record.turns_of(model, server, in_flight)
            if turns:
                rows.append(_server_row(record, turns, bold=server == least))
    heading = (
        "server", "in flight", "requests/s", "CPU µs", "raw ÷ served CPU", "p50 ms", "p99 ms", "client's CPU µs",
        "$ per 1,000", "J per 1,000, modelled",
    )  # fmt: skip
    return table(heading, rows)


def verdict_table(record: Record) -> str:
    """Each rival over Erg, round by round."""
    rows: list[Row] = []
    for model in record.models():
        for rival in record.servers(model):
            if rival in (ERG, CONVERTED):
                continue
            for in_flight in record.loads:
                cpu = times_erg(record, model, rival, in_flight, lambda turn: turn.cpu_us)
                rate = times_erg(record, model, rival, in_flight, lambda turn: turn.requests_per_s)
                p99 = times_erg(record, model, rival, in_flight, lambda turn: turn.p99_us)
                if cpu and rate and p99:
                    name = record.label(model)
                    cells = (_judged(cpu, more=True), _judged(rate, more=False), _judged(p99, more=True))
                    rows.append((name, rival, str(in_flight), *cells))
    return table(("model", "rival", "in flight", "its CPU time", "its requests/s", "its p99"), rows)


def tried_table(record: Record) -> str:
    """Every setting of every rival."""
    rows = [
        (
            record.label(each.model),
            each.server,
            each.setting,
            f"{number(each.score)}{', chosen' if each.chosen else ''}" if each.score else "did not run",
        )
        for each in record.tried
    ]
    return table(("model", "rival", "setting", "requests/s"), rows)


def _not_run(record: Record) -> str:
    lines = [
        f"- **{each.server or 'the model'} on {record.label(each.model)}: not run.** {each.why}"
        if each.model
        else f"- **{each.server}: not run.** {each.why}"
        for each in record.not_run
    ]
    return "\n".join(lines)


def _verdicts_intro(record: Record) -> str:
    return (
        "A rival's figure over Erg's, round by round. *Erg better* or **Erg worse** where all rounds agree, else no "
        f"difference was shown{'; one round alone shows nothing' if record.rounds < 2 else ''}."
    )


def _judged(ratio: Spread, *, more: bool) -> str:
    """`more`: whether a ratio above 1 is in Erg's favour."""
    text = with_range(ratio)
    if ratio.low == ratio.high:
        return text
    if ratio.low <= 1 <= ratio.high:
        return f"{text}, no difference shown"
    return f"{text}, *Erg better*" if (ratio.low > 1) == more else f"{text}, **Erg worse**"


def _server_row(record: Record, turns: Sequence[Turn], *, bold: bool) -> Row:
    first = turns[0]
    cpu_us = spread(turn.cpu_us for turn in turns)
    rate = with_range(spread(turn.requests_per_s for turn in turns))
    if client_limited(turns):
        rate = f"≥ {rate}"
    assert cpu_us is not None
    cpu = with_range(cpu_us)
    return (
        first.server,
        str(first.in_flight),
        rate,
        f"**{cpu}**" if bold else cpu,
        with_range(of_raw(record, first.model, first.server, first.in_flight)),
        with_range(_scaled(turns, lambda turn: turn.p50_us)),
        with_range(_scaled(turns, lambda turn: turn.p99_us)),
        _median(turns, lambda turn: turn.client_cpu_us),
        *_money(record, cpu_us.median),
    )


def client_limited(turns: Sequence[Turn]) -> bool:
    """Whether the client had no more of its core to give, so that the server may do more than it was asked."""
    share = spread(turn.client_share for turn in turns)
    return share is not None and share.median > CLIENT_LIMIT_SHARE


def _notes(record: Record, model: str) -> str:
    notes = []
    turns = [turn for turn in record.turns if turn.model == model]
    groups = {(turn.server, turn.in_flight) for turn in turns}
    if any(client_limited(record.turns_of(model, *group)) for group in groups):
        notes.append("≥: the client had no more CPU to give, so the server may do more.")
    failed: dict[str, int] = {}
    for turn in turns:
        failed[turn.server] = failed.get(turn.server, 0) + turn.failed
    notes += [
        f"**{server} failed {count:,} requests**, which no figure counts." for server, count in failed.items() if count
    ]
    told = record.answers.get(model, {})
    if told:
        notes.append(
            "Answers against ONNX Runtime's: " + "; ".join(f"{name} {text}" for name, text in told.items()) + "."
        )
    return " ".join(notes)


def _least_cpu(record: Record, model: str, in_flight: int) -> str | None:
    found = {
        server: cost.median
        for server in record.servers(model)
        if server != CONVERTED
        and (cost := spread(turn.cpu_us for turn in record.turns_of(model, server, in_flight))) is not None
    }
    return min(found, key=found.__getitem__) if found else None


def _tried_intro(record: Record) -> str:
    loads = ", ".join(str(load) for load in record.loads)
    return (
        "Each was tried for a moment before the rounds; the score is the geometric mean of requests a second with "
        f"{loads} in flight."
    )


def _money(record: Record, cpu_us: float) -> tuple[str, str]:
    return f"{usd_per_1000(record, cpu_us):.2g}", number(modelled_joules_per_1000(record, cpu_us))


def _scaled(turns: Sequence[Turn], figure: Callable[[Turn], float]) -> Spread | None:
    found = spread(figure(turn) for turn in turns)
    return None if found is None else found.times(1e-3)


def _median(turns: Sequence[Turn], figure: Callable[[Turn], float]) -> str:
    found = spread(figure(turn) for turn in turns)
    return UNKNOWN if found is None else number(found.median)
