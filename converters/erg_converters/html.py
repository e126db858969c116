"""A conversion's report as one file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from erg_server.files import replace_text

from erg_converters.plots import draw_front
from erg_converters.report import SOURCE_CANDIDATE, CandidateRecord, Report

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1b;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #ddd}
p.lead{font-size:1.15rem}table{border-collapse:collapse;width:100%}th,td{padding:.3rem .6rem;text-align:left;
border-bottom:1px solid #eee;vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.passed,.done{color:#00664b}.refused,.failed{color:#b03a00}.cached,.skipped{color:#555}img{max-width:100%}
tr.chosen{background:#eef6ff}code{background:#f4f4f4;padding:0 .2rem}
"""


def write_html(report: Report, path: Path) -> None:
    """Write the report; everything in it that came from outside is escaped."""
    replace_text(path, render(report))


def render(report: Report) -> str:
    """The page."""
    title = f"{report.model}: conversion report"
    parts = [
        f"<h1>{escape(report.model)}</h1>",
        f"<p>{escape(report.created)} · Erg {escape(report.erg_version)} · measured on {escape(report.device)}</p>",
        f'<p class="lead">{_summary(report)}</p>',
        _picture(report),
        "<h2>Candidates</h2>",
        _candidates(report),
        "<h2>Cost by shape</h2>",
        "<p>CPU milliseconds a row, and how many times cheaper than the source, taken in turns in one run.</p>",
        _costs(report),
        "<h2>Verdicts</h2>",
        _verdicts(report),
        "<h2>Steps</h2>",
        _steps(report),
        "<h2>Made with</h2>",
        _tools(report),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _summary(report: Report) -> str:
    if not report.chosen:
        return "The run ended before anything was chosen; the steps below say where."
    served = f" Published as <code>{escape(report.published)}</code>." if report.published else ""
    return f"<b>{escape(report.chosen)}</b> is chosen: {escape(report.chosen_reason)}.{served}"


def _picture(report: Report) -> str:
    if not report.measurements:
        return ""
    with tempfile.TemporaryDirectory(prefix="erg-report-") as folder:
        file = Path(folder) / "front.png"
        draw_front(report, file)
        data = base64.b64encode(file.read_bytes()).decode("ascii")
    return f'<p><img alt="accuracy against cost, and speed by shape" src="data:image/png;base64,{data}"></p>'


def _candidates(report: Report) -> str:
    rows = [
        (
            [
                escape(each.name),
                f"{escape(each.backend)} {escape(each.precision)}",
                f"{each.bytes / 1e6:.1f}",
                f'<span class="{each.status}">{each.status}</span>',
                _accuracy(each),
                _cosine(each),
                escape(each.reason),
            ],
            "chosen" if each.name == report.chosen else "",
        )
        for each in report.candidates
    ]
    headings = ("candidate", "runs in", "MB", "gate", "drop [interval]", "cosine mean / min", "why")
    return _table(headings, rows, numbers={2})


def _accuracy(record: CandidateRecord) -> str:
    found = record.accuracy
    if record.name == SOURCE_CANDIDATE:
        return "the yardstick"
    if found is None or found.drop is None:
        return ""
    return (
        f"{escape(found.metric)} {found.value:.5f}, drop {found.drop:+.5f} "
        f"[{found.drop_low or 0:+.5f}, {found.drop_high or 0:+.5f}] at {found.confidence:.0%}, n={found.samples}"
    )


def _cosine(record: CandidateRecord) -> str:
    gate = record.gate
    if gate is None or gate.cosine_mean is None or gate.cosine_min is None:
        return ""
    return f"{gate.cosine_mean:.6f} / {gate.cosine_min:.6f}"


def _costs(report: Report) -> str:
    shapes = [(m.batch_size, m.length) for m in report.measurements if m.variant == SOURCE_CANDIDATE]
    headings = ["variant", "memory MB", *[_shape(*shape) for shape in shapes]]
    rows = []
    for record in report.candidates:
        found = {(m.batch_size, m.length): m for m in report.measurements if m.variant == record.name}
        if not found:
            continue
        memory = next(iter(found.values())).memory_bytes
        cells = [escape(record.name), "" if memory is None else f"{memory / 1e6:.0f}"]
        for shape in shapes:
            figure = found.get(shape)
            ratio = f" ({figure.cpu_ratio:.2f}×)" if figure and figure.cpu_ratio else ""  # noqa: RUF001
            cells.append("" if figure is None else f"{figure.cpu_ms_per_row or 0:.3f}{ratio}")
        rows.append((cells, "chosen" if record.name == report.chosen else ""))
    return _table(headings, rows, numbers=set(range(1, len(headings))))


def _shape(batch: int, length: int | None) -> str:
    return f"batch {batch}" if length is None else f"batch {batch}, length {length}"


def _verdicts(report: Report) -> str:
    rows = [
        ([escape(each.variant), _shape(each.batch_size, each.length), escape(each.verdict), escape(each.reason)], "")
        for each in report.verdicts
    ]
    return _table(("variant", "shape", "verdict", "why"), rows)


def _steps(report: Report) -> str:
    rows = [
        (
            [
                escape(f"{each.candidate}: {each.name}" if each.candidate else each.name),
                f'<span class="{each.status}">{each.status}</span>',
                f"{each.seconds:.1f}",
                escape(", ".join(f"{name} {value}" for name, value in each.figures.items()) or each.message),
            ],
            "",
        )
        for each in report.steps
    ]
    return _table(("step", "status", "seconds", "found"), rows, numbers={2})


def _tools(report: Report) -> str:
    tools = {
        (tool, version)
        for candidate in report.candidates
        for each in candidate.passes
        for tool, version in each.tools.items()
    }
    rows = [([escape(tool), escape(version)], "") for tool, version in sorted(tools)]
    rows.append((["recipe", f"{escape(report.recipe)} <code>{escape(report.recipe_sha256[:16])}</code>"], ""))
    rows.append((["evaluation data", f"{escape(report.evaluation)} <code>{report.evaluation_sha256[:16]}</code>"], ""))
    return _table(("", ""), rows)


def _table(headings: Sequence[str], rows: Iterable[tuple[Sequence[str], str]], numbers: set[int] | None = None) -> str:
    """Cells are HTML already; `numbers` are the columns that are aligned as numbers."""
    right = numbers or set()

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="n">{text}</{tag}>' if index in right else f"<{tag}>{text}</{tag}>"
            for index, text in enumerate(texts)
        )

    body = "".join(f'<tr class="{kind}">{cells("td", texts)}</tr>' for texts, kind in rows)
    return f"<table><thead><tr>{cells('th', headings)}</tr></thead><tbody>{body}</tbody></table>"
