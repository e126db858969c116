"""A page that needs nothing else, neither network nor script; it follows the reader's light or dark scheme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from erg_server.files import replace_text

from erg_loadtest.errors import PlanError
from erg_loadtest.svg import clean

# The hues of Okabe and Ito, "Color Universal Design" (2008), darker on white and lighter on black.
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1b1b;--soft:#555;--rule:#ddd;--row:#eee;--code:#f4f4f4;--mark:#eef6ff;
--good:#00664b;--bad:#b03a00;--c0:#0072b2;--c1:#c25300;--c2:#00795a;--c3:#a3527d;--c4:#8a6100;--c5:#2f7ea8}
@media (prefers-color-scheme:dark){:root{--bg:#15171a;--fg:#e6e6e6;--soft:#a8adb3;--rule:#3a3f45;--row:#2a2e33;
--code:#24282d;--mark:#1c2b3a;--good:#4fd0a5;--bad:#ff9a6b;--c0:#5cb6ea;--c1:#ff9350;--c2:#3fcda0;--c3:#e3a0c4;
--c4:#f0bb3d;--c5:#8fd0f2}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:84rem;margin:1.5rem auto;
padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .2rem}h2{font-size:1.15rem;margin-top:2rem;
border-bottom:1px solid var(--rule)}h3{font-size:1rem;margin:0 0 .3rem}p.lead{font-size:1.15rem}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;overflow-wrap:normal}
th,td{padding:.3rem .6rem;text-align:left;border-bottom:1px solid var(--row);vertical-align:top}
td:first-child,th:first-child{padding-left:0}
td.n,th.n{text-align:right}
td.n{font-variant-numeric:tabular-nums;white-space:pre}td:first-child:not(.n){min-width:7rem}
tr.chosen{background:var(--mark)}code,pre{background:var(--code);padding:0 .2rem}
pre{white-space:pre-wrap;padding:.5rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:1.5rem;margin-top:1rem}
figure{margin:0;min-width:0}svg{display:block;width:100%;height:auto;max-width:34rem}
figcaption{font-size:.85rem;color:var(--soft)}details{font-size:.9rem}summary{cursor:pointer;color:var(--soft)}
svg text{fill:var(--fg);font:11px system-ui,sans-serif}svg .tick{fill:var(--soft)}svg .end{text-anchor:end}
svg .middle{text-anchor:middle}svg .note{font-size:10px}
svg .grid{stroke:var(--row)}svg .axis{stroke:var(--soft)}svg .guide{stroke:var(--bad);stroke-dasharray:4 3}
svg .error{stroke:var(--fg);stroke-width:1.2}svg .stroke{fill:none;stroke-width:1.8}
svg .chosen{fill:none;stroke:var(--fg);stroke-width:1.5}svg .modelled{fill-opacity:.45;stroke-dasharray:3 2}
""" + "".join(
    f"svg .c{index}.fill{{fill:var(--c{index});stroke:var(--c{index})}}svg .c{index}.stroke{{stroke:var(--c{index})}}"
    f"svg .c{index}.hollow{{fill:var(--bg);stroke:var(--c{index});stroke-width:1.6}}"
    for index in range(6)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of plain text; `numbers` are the columns aligned as numbers, `chosen` the row that stands out."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = field(default_factory=frozenset)
    chosen: int | None = None

    def html(self) -> str:
        """The table, escaped."""
        body = "".join(
            f"<tr{_class('chosen' if index == self.chosen else '')}>{self._cells('td', row)}</tr>"
            for index, row in enumerate(self.rows)
        )
        head = f"<thead><tr>{self._cells('th', self.headings)}</tr></thead>" if any(self.headings) else ""
        return f'<div class="wide" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>'

    def _cells(self, tag: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{_class('n' if index in self.numbers else '')}>{clean(text)}</{tag}>"
            for index, text in enumerate(texts)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A chart with its numbers; `svg` is "" where there was nothing to draw."""

    title: str
    svg: str
    table: Table
    note: str = ""

    def html(self) -> str:
        """The figure, or "" without a chart."""
        if not self.svg:
            return ""
        note = f"<figcaption>{clean(self.note)}</figcaption>" if self.note else ""
        data = f"<details><summary>numbers</summary>{self.table.html()}</details>"
        return f"<figure><h3>{clean(self.title)}</h3>{self.svg}{note}{data}</figure>"


def charts(pictures: Iterable[Picture]) -> str:
    """Pictures beside one another where the page is wide enough."""
    shown = "".join(picture.html() for picture in pictures)
    return f'<div class="charts">{shown}</div>' if shown else ""


def paragraph(text: str, kind: str = "") -> str:
    """Escaped text."""
    return f"<p{_class(kind)}>{clean(text)}</p>"


def heading(text: str, level: int = 2) -> str:
    """Escaped text."""
    return f"<h{level}>{clean(text)}</h{level}>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def page(title: str, parts: Iterable[str]) -> str:
    """The whole document; `parts` are HTML already."""
    # The policy has the browser refuse what escaping should have kept out.
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"<title>{clean(title)}</title><style>{_STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def write_text(path: Path, text: str) -> None:
    """Replace a file's text at once; raises PlanError with nothing changed."""
    try:
        replace_text(path, text, durable=False)
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None
