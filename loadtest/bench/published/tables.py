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

CLIENT_LIMIT_SHARE = 0.9
BUSY_CORES = 0.2
"""Other programs' use of the machine from which on a run is not to be believed."""
_UNKNOWN = "–"  # noqa: RUF001 - an en dash for a figure that there is not

Row = Sequence[str]


def section(record: Record, *, cpu_plot: str, latency_plot: str) -> str:
    """All of it. The plots are named as the page links to them."""
    parts = [_preamble(record), _not_run(record)]
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
        rate = _with_range(spread(turn.requests_per_s for turn in raw))
        rows.append(
            ("ONNX Runtime alone", f"batch {raw[0].batch}", rate, _with_range(cost_us), "1", "", "", "",
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
    return _table(heading, rows)


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
                    name = record.titles.get(model, model)
                    cells = (_judged(cpu, more=True), _judged(rate, more=False), _judged(p99, more=True))
                    rows.append((name, rival, str(in_flight), *cells))
    return _table(("model", "rival", "in flight", "its CPU time", "its requests/s", "its p99"), rows)


def tried_table(record: Record) -> str:
    """Every setting of every rival."""
    rows = [
        (
            record.titles.get(each.model, each.model),
            each.server,
            each.setting,
            f"{number(each.score)}{', chosen' if each.chosen else ''}" if each.score else "did not run",
        )
        for each in record.tried
    ]
    return _table(("model", "rival", "setting", "requests/s"), rows)


def report_text(record: Record) -> str:
    """The reports beside each other, and the commands."""
    commands = "\n".join(report.command for report in record.reports)
    rows: list[Row] = []
    for name, read in _REPORT_ROWS:
        rows.append((name, *(read(report.document) for report in record.reports)))
    table = _table(("", *(report.server for report in record.reports)), rows)
    return (
        "The same program on servers that speak the same protocol; only the axis of the batch is written out for a "
        f"server without a model configuration.\n\n```\n{commands}\n```\n\n{table}"
    )


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


def _preamble(record: Record) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    paragraphs = [
        f"`{record.command}` on {record.date}: {record.machine}; {versions}. {record.workers} workers of one thread for "
        f"every server, the same inputs of one row, the same requests in flight, each turn {record.seconds:g} s. "
        f"Servers take turns in {record.rounds} rounds, in another order each; figures are medians, in brackets the "
        "least and the most of the rounds. CPU is all of a server's processes by the kernel's count. *Raw* is ONNX "
        "Runtime in a loop without a server, a process a core, at its cheapest batch, measured in the same round.",
        "Erg has the configuration of the repository, and nothing is tuned. The rivals run in environments of their own "
        "with ONNX Runtime of the same version and session options, without access logs (MLServer also without "
        "metrics), and with the best of the settings below. Erg and MLServer are called over v2 gRPC by `erg load`'s "
        "client; Mosec over HTTP with raw bytes as bodies, which costs its client and itself less than a protocol would.",
        f"Dollars are CPU time at {record.usd_per_cpu_hour:g} a CPU hour, joules CPU time at "
        f"{record.watts_per_busy_core:g} W a busy core. Both were put in as examples, the same for all, and the joules "
        "are modelled, not measured.",
    ]
    if record.busy_at_start > BUSY_CORES:
        paragraphs.append(
            f"**Not to be believed**: other programs used {record.busy_at_start:.1f} cores of the machine when the run "
            "began."
        )
    return "\n\n".join(paragraphs)


def _not_run(record: Record) -> str:
    lines = [
        f"- **{each.server or 'the model'} on {record.titles.get(each.model, each.model)}: not run.** {each.why}"
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
    text = _with_range(ratio)
    if ratio.low == ratio.high:
        return text
    if ratio.low <= 1 <= ratio.high:
        return f"{text}, no difference shown"
    return f"{text}, *Erg better*" if (ratio.low > 1) == more else f"{text}, **Erg worse**"


def _server_row(record: Record, turns: Sequence[Turn], *, bold: bool) -> Row:
    first = turns[0]
    cpu_us = spread(turn.cpu_us for turn in turns)
    rate = _with_range(spread(turn.requests_per_s for turn in turns))
    if client_limited(turns):
        rate = f"≥ {rate}"
    assert cpu_us is not None
    cpu = _with_range(cpu_us)
    return (
        first.server,
        str(first.in_flight),
        rate,
        f"**{cpu}**" if bold else cpu,
        _with_range(of_raw(record, first.model, first.server, first.in_flight)),
        _with_range(_scaled(turns, lambda turn: turn.p50_us)),
        _with_range(_scaled(turns, lambda turn: turn.p99_us)),
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
    return _UNKNOWN if found is None else number(found.median)


def _with_range(found: Spread | None) -> str:
    if found is None:
        return _UNKNOWN
    if found.low == found.high:
        return number(found.median)
    return f"{number(found.median)} [{number(found.low)}, {number(found.high)}]"


def _table(heading: Row, rows: Sequence[Row]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _latency(document: dict[str, object], percentile: str) -> str:
    latency = document.get("latency")
    if not isinstance(latency, dict):
        return _UNKNOWN
    return number(float(latency["percentiles_us"][percentile]) / 1e3)


def _server_cpu(document: dict[str, object]) -> str:
    cpu = document.get("server_cpu")
    if not isinstance(cpu, dict) or cpu.get("us_per_inference") is None:
        return f"unknown: {cpu.get('missing', '')}" if isinstance(cpu, dict) else _UNKNOWN
    front, workers = cpu["front_us_per_inference"], cpu["workers_us_per_inference"]
    return f"{number(cpu['us_per_inference'])} ({number(front)} + {number(workers)})"


def _mean_batch(document: dict[str, object]) -> str:
    server = document.get("server")
    if not isinstance(server, dict):
        return _UNKNOWN
    return number(server["mean_batch"]) if "mean_batch" in server else f"unknown: {server.get('missing', '')}"


_REPORT_ROWS: tuple[tuple[str, Callable[[dict[str, object]], str]], ...] = (
    ("load", lambda document: str(document["description"])),
    ("answered, failed", lambda document: f"{document['succeeded']:,}, {document['failed']:,}"),
    ("inferences a second", lambda document: number(float(str(document["inferences_per_s"])))),
    ("latency p50, ms", lambda document: _latency(document, "p50")),
    ("latency p99, ms", lambda document: _latency(document, "p99")),
    ("server CPU µs (front + workers)", _server_cpu),
    ("mean batch, by the server's statistics", _mean_batch),
    ("client CPU s", lambda document: number(float(str(document["client_cpu_s"])))),
)
