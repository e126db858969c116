"""The figures of the published benchmark as SVG: small, the same bytes for the same figures, readable on any page."""

from __future__ import annotations

import io
from collections.abc import Callable

from bench.published.figures import CONVERTED, ERG, Record, Turn, spread
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Of the Okabe-Ito palette, which colour-blind readers tell apart; markers differ as well.
_STYLES = {
    ERG: ("#0072B2", "o"),
    CONVERTED: ("#56B4E9", "D"),
    "MLServer": ("#D55E00", "s"),
    "Mosec": ("#009E73", "^"),
}
_OTHER = ("#555555", "x")


def cpu_plot(record: Record) -> str:
    """CPU time of a request against requests in flight, a panel a model, ONNX Runtime alone as a line."""

    def draw(axes: Axes, model: str) -> None:
        _lines(axes, record, model, lambda turn: turn.cpu_us / 1e3)
        raw = spread(turn.cpu_us / 1e3 for turn in record.raw_of(model))
        if raw is not None:
            axes.axhline(raw.median, color="#000000", linestyle=":", linewidth=1, label="ONNX Runtime alone")
        axes.set_yscale("log")
        _plain(axes.yaxis)
        axes.set_ylabel("server CPU, ms a request")

    return _svg(record, draw, "requests in flight")


def latency_plot(record: Record) -> str:
    """p99 latency against requests a second, a point a load: to the right and low is good."""

    def draw(axes: Axes, model: str) -> None:
        for server in record.servers(model):
            points = []
            for in_flight in record.loads:
                turns = record.turns_of(model, server, in_flight)
                rate, p99 = spread(turn.requests_per_s for turn in turns), spread(turn.p99_us / 1e3 for turn in turns)
                if rate is not None and p99 is not None:
                    points.append((rate.median, p99.median, in_flight))
            colour, marker = _STYLES.get(server, _OTHER)
            axes.plot([x for x, _, _ in points], [y for _, y, _ in points], color=colour, marker=marker, label=server)
            for x, y, in_flight in points:
                axes.annotate(str(in_flight), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        axes.margins(0.12)
        axes.set_ylabel("p99 latency, ms")

    return _svg(record, draw, "requests a second (numbers: in flight)")


def _lines(axes: Axes, record: Record, model: str, figure: Callable[[Turn], float]) -> None:
    for server in record.servers(model):
        loads, medians, below, above = [], [], [], []
        for in_flight in record.loads:
            found = spread(figure(turn) for turn in record.turns_of(model, server, in_flight))
            if found is not None:
                loads.append(in_flight)
                medians.append(found.median)
                below.append(found.median - found.low)
                above.append(found.high - found.median)
        colour, marker = _STYLES.get(server, _OTHER)
        axes.errorbar(loads, medians, yerr=[below, above], color=colour, marker=marker, capsize=3, label=server)
    axes.set_xscale("log")
    axes.set_xticks(record.loads, [str(load) for load in record.loads])
    axes.minorticks_off()


def _plain(axis: Axis) -> None:
    """Numbers as people write them, few enough not to run into each other."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _svg(record: Record, draw: Callable[[Axes, str], None], horizontal: str) -> str:
    models = record.models()
    # Text stays text, and neither a date nor random ids make equal figures differ.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "erg", "font.size": 9}):
        figure = Figure(figsize=(4.2 * len(models), 3.6), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, len(models), squeeze=False)[0]
        for axes, model in zip(panels, models, strict=True):
            draw(axes, model)
            axes.set_title(record.label(model), fontsize=9)
            axes.set_xlabel(horizontal)
            axes.grid(visible=True, alpha=0.3)
            axes.legend(fontsize=7)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return target.getvalue()
