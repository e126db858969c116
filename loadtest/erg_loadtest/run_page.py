"""One run as a page."""

from __future__ import annotations

import json

from erg_loadtest.document import RunDocument
from erg_loadtest.figure_text import full_text
from erg_loadtest.indices import PARTS, UNITS, Indices, Parts, hints
from erg_loadtest.page import Table, charts, heading, page, paragraph
from erg_loadtest.pictures import account_pictures, batch_sizes, figure_table, latency_distribution, timeline
from erg_loadtest.report import INVALID
from erg_loadtest.svg import clean, number


def run_page(run: RunDocument, found: Indices | None = None, baseline: Parts | None = None) -> str:
    """The page; everything in it that came from outside is escaped."""
    parts = [
        heading(run.label, 1),
        paragraph(f"{run.load} · {run.url} · {run.started} · power source: {run.power_source}", "soft"),
        *summary(run),
        heading("Pictures"),
        run_charts(run),
        heading("Figures"),
        figure_table(run).html(),
    ]
    if found is not None and baseline is not None:
        parts += index_section(run.parts(), baseline, found)
    parts += [heading("Made with"), *made_with(run)]
    return page(f"{run.label}: load test", parts)


def summary(run: RunDocument) -> list[str]:
    """The figures that matter first, and what to know before believing them."""
    wanted = ("inferences_per_s", "latency_p99_us", "joules_per_1000", "usd_per_1000", "cpu_price_per_1000")
    lead = " · ".join(
        ("p99 " if name == "latency_p99_us" else "") + full_text(run.figures[name])
        for name in wanted
        if name in run.figures
    )
    parts = [paragraph(lead, "lead")] if lead else []
    if not run.valid:
        parts.append(paragraph(f"This run is invalid: {validity_text(run)}", "bad"))
    return parts + [paragraph(text, "bad") for text in run.warnings if not text.startswith(INVALID)]


def validity_text(run: RunDocument) -> str:
    """Why the client's own verdict is what it is."""
    reasons = (run.validity or {}).get("reasons") or ["the client was the bottleneck"]
    return "; ".join(str(reason) for reason in reasons) if isinstance(reasons, list) else str(reasons)


def run_charts(run: RunDocument) -> str:
    """All pictures of one run."""
    return charts([latency_distribution([run]), batch_sizes(run), *timeline(run), *account_pictures(run)])


def index_section(parts: Parts, baseline: Parts, found: Indices) -> list[str]:
    """The founding document's two indices with their parts."""
    weights = ", ".join(f"{name} {weight:g}" for name, weight in found.weights.items())
    rows = [
        ["inference cost (less is better)", _index(found.inference_cost), "1", found.source],
        ["training efficiency (more is better)", _index(found.training_efficiency), "1", "as stated"],
    ]
    raw = [
        [
            f"{name}, {UNITS[name]}", _known(parts.part(name)), _known(baseline.part(name)),
            number(found.ratios[name]) if name in found.ratios else "unknown",
        ]
        for name in PARTS
    ]  # fmt: skip
    for name, above, below in (
        ("performance", parts.performance, baseline.performance),
        ("training time, s", parts.training_s, baseline.training_s),
    ):
        raw.append([name, _known(above), _known(below), number(above / below) if above and below else "unknown"])
    return [
        heading("Indices"),
        paragraph(
            "Inference cost is the weighted mean of power, memory and inference time, each over the baseline's, "
            "divided by performance over the baseline's; training efficiency is performance over training time, each "
            f"over the baseline's. Baseline: {baseline.name}. Weights: {weights}."
        ),
        Table(headings=("", parts.name, baseline.name, "source"), rows=rows, numbers=frozenset({1, 2})).html(),
        Table(headings=("part", parts.name, baseline.name, "ratio"), rows=raw, numbers=frozenset({1, 2, 3})).html(),
        paragraph(hints(found)) if hints(found) else "",
    ]


def made_with(run: RunDocument) -> list[str]:
    """Machine, versions, command and plan."""
    server = run.server_software
    gpus = ", ".join(str(each) for each in run.machine.get("gpus", [])) or "none"
    rows = [
        [
            "server",
            f"{server.get('name') or 'unknown'} {server.get('version', '')} {server.get('missing', '')}".strip(),
        ],
        [
            "client's machine",
            (
                f"{run.machine.get('cpu')}, {run.machine.get('threads')} threads, "
                f"{number(float(run.machine.get('memory_bytes', 0)) / 1e9)} GB, {run.machine.get('kernel')}, "
                f"GPUs: {gpus}"
            ),
        ],
        ["versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())],
        ["power source", run.power_source],
        ["command", run.command],
        ["started", run.started],
    ]
    plan = json.dumps(run.plan, indent=1, default=str)
    return [
        Table(headings=("", ""), rows=rows).html(),
        f"<details><summary>plan</summary><pre>{clean(plan)}</pre></details>",
    ]


def _index(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def _known(value: float | None) -> str:
    return "unknown" if value is None else number(value)
