"""Small charts as SVG text for a page: they take their colours from the page's style, so they follow its scheme.

Every chart has a title and a description for those who do not see it, and the page has its numbers in a table beside
it. All text is escaped here; nobody escapes before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

WIDTH, HEIGHT = 400, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 40
_ROW = 30
COLOURS = 6
"""How many classes c0, c1, … the page's style has."""
_MAX_LABEL = 34
_MOST_DECADES = 1e9
_LINE = 16
_LEGEND_LETTERS = 52


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point; `low` and `high` bound y, `label` is written beside it, `marked` draws it as the chosen one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    marked: bool = False
    hollow: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one colour; `name` is its legend."""

    name: str
    points: Sequence[Point]
    kind: Literal["line", "steps", "dots", "columns"] = "line"
    colour: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis; `ticks` of value and text, made for the data where there are none."""

    label: str
    log: bool = False
    from_zero: bool = False
    ticks: Sequence[tuple[float, str]] = ()
    guide: float | None = None
    """A value to draw a line at: an objective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One horizontal bar with its bounds; `striped` marks a modelled figure."""

    label: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    colour: int = 0
    striped: bool = False


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool

    def at(self, value: float) -> float:
        """The place on the page; what lies outside is put on the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


@dataclass(slots=True)
class _Drawing:
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def text(self, x: float, y: float, text: str, kind: str = "", extra: str = "") -> None:
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}"{extra}>{clean(text)}</text>')

    def add(self, text: str) -> None:
        self.parts.append(text)


def chart(title: str, description: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Series over two axes, or "" where there is no point to draw."""
    points = [point for each in series for point in each.points if _drawable(point, x, y)]
    if not points:
        return ""
    columns = any(each.kind == "columns" for each in series)
    across = _scale([point.x for point in points], x, _LEFT, WIDTH - _RIGHT, pad=0.5 if columns else 0.0)
    heights = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    up = _scale(heights, y, HEIGHT - _BOTTOM, _TOP)
    drawing = _Drawing()
    _axes(drawing, x, y, across, up)
    for each in series:
        drawn = [point for point in each.points if _drawable(point, x, y)]
        if drawn:
            _series(drawing, each, drawn, across, up)
    return _below_legend(title, description, series if len(series) > 1 else (), drawing)


def bars(title: str, description: str, rows: Sequence[Bar], *, guide: float | None = None) -> str:
    """Horizontal bars from zero, or ratios as points around a `guide`, which is above zero; "" where there are none."""
    if not rows:
        return ""
    values = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    if guide is None:
        across = _Scale(0.0, max([*values, 0.0]) or 1.0, 6, WIDTH - 6, log=False)
    else:
        # Ratios: half and double are equally far from 1.
        across = _scale([*values, guide], Axis(label="", log=True), 6, WIDTH - 6)
    height = _ROW * len(rows) + 8
    drawing = _Drawing()
    for index, row in enumerate(rows):
        top = 4 + _ROW * index
        if guide is not None:
            # Only beside the points, not through the words.
            drawing.line(across.at(guide), top + 12, across.at(guide), top + 28, "guide")
        drawing.text(6, top + 10, _short(row.label, 40), "tick")
        drawing.text(WIDTH - 6, top + 10, row.text, "tick end")
        middle, end = top + 20, across.at(row.value)
        if guide is None:
            kind = f"fill c{row.colour % COLOURS}" + (" modelled" if row.striped else "")
            drawing.add(f'<rect x="6" y="{middle - 5}" width="{max(end - 6, 1):.1f}" height="10" class="{kind}"/>')
        else:
            drawing.add(f'<circle cx="{end:.1f}" cy="{middle}" r="4" class="fill c{row.colour % COLOURS}"/>')
        if row.low is not None and row.high is not None:
            drawing.line(across.at(row.low), middle, across.at(row.high), middle, "error")
            for bound in (row.low, row.high):
                drawing.line(across.at(bound), middle - 4, across.at(bound), middle + 4, "error")
    return _wrapped(title, description, height, drawing)


def number(value: float) -> str:
    """A value with three digits that matter, and thousands apart."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 0.001:
        digits = max(0, 2 - math.floor(math.log10(size)))
        text = f"{value:.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.2e}"


def clean(text: str) -> str:
    """Text for a page: escaped, and without characters that no document may hold."""
    return escape(printable(text))


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey and a document may not hold."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)


def _drawable(point: Point, x: Axis, y: Axis) -> bool:
    finite = math.isfinite(point.x) and math.isfinite(point.y)
    return finite and not (x.log and point.x <= 0) and not (y.log and point.y <= 0)


def _scale(values: Sequence[float], axis: Axis, start: float, end: float, pad: float = 0.0) -> _Scale:
    shown = [*values, *(value for value, _ in axis.ticks)]
    if axis.guide is not None:
        shown.append(axis.guide)
    low, high = min(shown), max(shown)
    if axis.log:
        high = max(shown)
        # What is smaller by more is noise beside the rest, and is put on the edge.
        low = max(min(value for value in shown if value > 0), high / _MOST_DECADES)
        spread = max(math.log10(high / low) * 0.06, 0.03)
        return _Scale(low / 10**spread, high * 10**spread, start, end, log=True)
    if pad:
        return _Scale(low - pad, high + pad, start, end, log=False)
    if axis.from_zero:
        low = min(0.0, low)
    spread = (high - low) * 0.06 if high - low > max(abs(high), abs(low)) * 1e-9 else max(abs(high) * 0.1, 1e-12)
    spread = max(spread, 1e-12)
    return _Scale(low if axis.from_zero and low == 0 else low - spread, high + spread, start, end, log=False)


def _ticks(scale: _Scale, axis: Axis) -> list[tuple[float, str]]:
    if axis.ticks:
        return list(axis.ticks)
    if scale.log:
        found = _log_ticks(scale)
        if len(found) >= 2:
            return [(value, number(value)) for value in found]
    step = _step(scale.high - scale.low)
    first = math.ceil(scale.low / step - 1e-9)
    values = [index * step for index in range(first, math.floor(scale.high / step + 1e-9) + 1)]
    return [(value, _tick_text(value, step)) for value in values if not scale.log or value > 0]


def _tick_text(value: float, step: float) -> str:
    if abs(value) < step / 2:
        return "0"
    if not 1e-4 <= step < 1e9:
        return f"{value:.3g}"
    # As many places as a step of 1, 2, 2.5 or 5 of some size needs, so that no two ticks read alike.
    places = max(0, 1 - math.floor(math.log10(step)))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _log_ticks(scale: _Scale) -> list[float]:
    decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [digit * 10.0**power for power in decades for digit in digits]
        found = [value for value in found if scale.low <= value <= scale.high]
        if len(found) >= 3:
            return found[:: -(-len(found) // 6)]
    return found


def _step(span: float) -> float:
    rough = span / 5
    size = 10.0 ** math.floor(math.log10(rough))
    return next(digit * size for digit in (1, 2, 2.5, 5, 10) if digit * size >= rough)


def _axes(drawing: _Drawing, x: Axis, y: Axis, across: _Scale, up: _Scale) -> None:
    left, right, bottom = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for value, text in _ticks(up, y):
        drawing.line(left, up.at(value), right, up.at(value), "grid")
        drawing.text(left - 5, up.at(value) + 4, text, "tick end")
    last = -math.inf
    for value, text in _ticks(across, x):
        place = across.at(value)
        half = len(text) * 3.2
        if place - half < last:
            continue
        last = place + half + 4
        drawing.line(place, bottom, place, bottom + 4, "axis")
        drawing.text(place, bottom + 16, text, "tick middle")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text((left + right) / 2, HEIGHT - 6, x.label, "label middle")
    middle = (_TOP + bottom) / 2
    drawing.text(12, middle, y.label, "label middle", f' transform="rotate(-90 12 {middle:.0f})"')
    if y.guide is not None:
        drawing.line(left, up.at(y.guide), right, up.at(y.guide), "guide")
    if x.guide is not None:
        drawing.line(across.at(x.guide), _TOP, across.at(x.guide), bottom, "guide")


def _series(drawing: _Drawing, series: Series, points: Sequence[Point], across: _Scale, up: _Scale) -> None:
    colour = f"c{series.colour % COLOURS}"
    if series.kind == "columns":
        width = max(2.0, min(26.0, 0.8 * (WIDTH - _LEFT - _RIGHT) / max(1.0, across.high - across.low)))
        floor = HEIGHT - _BOTTOM
        for point in points:
            top, left = up.at(point.y), across.at(point.x) - width / 2
            drawing.add(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{max(floor - top, 0):.1f}" '
                f'class="fill {colour}"/>'
            )
        return
    if series.kind in {"line", "steps"} and len(points) > 1:
        drawing.add(f'<path d="{_path(series, points, across, up)}" class="stroke {colour}"/>')
    if series.kind == "steps" or len(points) > 60:
        return
    for point in points:
        _mark(drawing, point, colour, across.at(point.x), up)


def _mark(drawing: _Drawing, point: Point, colour: str, x: float, up: _Scale) -> None:
    if point.low is not None or point.high is not None:
        low, high = point.low if point.low is not None else point.y, point.high if point.high is not None else up.high
        drawing.line(x, up.at(max(low, up.low)), x, up.at(high), f"stroke {colour}")
    y = up.at(point.y)
    drawing.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="{"hollow" if point.hollow else "fill"} {colour}"/>')
    if point.marked:
        drawing.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" class="chosen"/>')
    if point.label:
        end = x > WIDTH * 0.6
        text = _short(point.label, 30 if end else 26)
        drawing.text(x - 10 if end else x + 10, y - 6, text, "note end" if end else "note")


def _path(series: Series, points: Sequence[Point], across: _Scale, up: _Scale) -> str:
    pieces = [f"M{across.at(points[0].x):.1f} {up.at(points[0].y):.1f}"]
    for point in points[1:]:
        if series.kind == "steps":
            pieces.append(f"H{across.at(point.x):.1f}V{up.at(point.y):.1f}")
        else:
            pieces.append(f"L{across.at(point.x):.1f} {up.at(point.y):.1f}")
    return "".join(pieces)


def _below_legend(title: str, description: str, series: Sequence[Series], drawing: _Drawing) -> str:
    # The legend stands above the frame, which keeps its height.
    lines = _legend(series)
    framed = _Drawing()
    for line, row in enumerate(lines):
        left = float(_LEFT)
        for each in row:
            framed.add(f'<circle cx="{left:.1f}" cy="{_LINE * line + 9}" r="4" class="fill c{each.colour % COLOURS}"/>')
            framed.text(left + 8, _LINE * line + 13, _short(each.name, _LEGEND_LETTERS), "tick")
            left += _legend_width(each)
    framed.add(f'<g transform="translate(0 {_LINE * len(lines)})">{"".join(drawing.parts)}</g>')
    return _wrapped(title, description, HEIGHT + _LINE * len(lines), framed)


def _legend(series: Sequence[Series]) -> list[list[Series]]:
    """Names in lines that are no wider than the frame."""
    lines: list[list[Series]] = []
    room = 0.0
    for each in series:
        if room < _legend_width(each):
            lines.append([])
            room = WIDTH - _LEFT
        lines[-1].append(each)
        room -= _legend_width(each)
    return lines


def _legend_width(series: Series) -> float:
    return 24 + 6 * min(len(series.name), _LEGEND_LETTERS)


def _short(text: str, most: int = _MAX_LABEL) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"


def _wrapped(title: str, description: str, height: int, drawing: _Drawing) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{clean(title)}</title><desc>{clean(description)}</desc>{''.join(drawing.parts)}</svg>"
    )
