"""Pictures of a run; matplotlib is an extra, asked for only when a picture is."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from erg_loadtest.document import RunDocument
from erg_loadtest.errors import PlanError
from erg_loadtest.pareto import Front, axis_title
from erg_loadtest.result import LoadResult
from erg_loadtest.svg import printable

_MAX_POINTS = 5000


def save_latency_plot(path: Path, results: Mapping[str, LoadResult]) -> None:
    """The share of requests answered within each latency, one line a run, the tail drawn to scale of its nines."""
    figure = _figure(path, (8, 5))
    axes = figure.add_subplot()
    for label, result in results.items():
        if len(result.latencies_ns):
            nines, latencies_ms = _tail(result)
            axes.step(nines, latencies_ms, where="post", label=label)
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency from when the request was due (ms)")
    ticks = (0.0, 90.0, 99.0, 99.9, 99.99)
    axes.set_xticks([_nines(tick / 100) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    _save(figure, path)


def save_latency_against_load(path: Path, runs: Sequence[RunDocument], objective_ms: float | None) -> None:
    """p50 and p99 with their intervals against the rate that was answered."""
    figure = _figure(path, (8, 5))
    _draw_latency(figure.add_subplot(), runs, objective_ms)
    _save(figure, path)


def save_sweep_plot(path: Path, runs: Sequence[RunDocument], best: Front, objective_ms: float | None) -> None:
    """Latency against rate, and every pair of the front's axes; members are filled, the chosen one has a ring."""
    pairs = list(combinations(best.axes, 2))
    columns = min(3, len(pairs) + 1)
    rows = -(-(len(pairs) + 1) // columns)
    figure = _figure(path, (5.2 * columns, 4.2 * rows))
    _draw_latency(figure.add_subplot(rows, columns, 1), runs, objective_ms)
    for place, (up, across) in enumerate(pairs, start=2):
        axes = figure.add_subplot(rows, columns, place)
        for index in range(len(runs)):
            at = best.values[index][across], best.values[index][up]
            face = "C0" if index in best.members else "none"
            axes.plot(*at, marker="o", markeredgecolor="C0", markerfacecolor=face, linestyle="none")
            if index == best.chosen:
                axes.plot(*at, marker="o", markersize=14, markeredgecolor="0.2", markerfacecolor="none")
            axes.annotate(str(index + 1), at, xytext=(7, 5), textcoords="offset points", fontsize=8)
        axes.set_xlabel(axis_title(across, best))
        axes.set_ylabel(axis_title(up, best))
        axes.grid(visible=True, alpha=0.3)
    names = "   ".join(f"{index}: {plain(run.label)}" for index, run in enumerate(runs, start=1))
    figure.text(0.01, -0.01, textwrap.fill(names, width=round(figure.get_figwidth() * 14)), fontsize=8, va="top")
    _save(figure, path)


def _draw_latency(axes: Any, runs: Sequence[RunDocument], objective_ms: float | None) -> None:
    shown = [run for run in runs if {"inferences_per_s", "latency_p50_us", "latency_p99_us"} <= run.figures.keys()]
    for variant in dict.fromkeys(run.variant for run in shown):
        own = sorted(
            (run for run in shown if run.variant == variant), key=lambda run: run.figures["inferences_per_s"].value
        )
        for name in ("p50", "p99"):
            found = [run.figures[f"latency_{name}_us"] for run in own]
            errors = [
                [(each.value - (each.value if each.low is None else each.low)) / 1e3 for each in found],
                [((each.value if each.high is None else each.high) - each.value) / 1e3 for each in found],
            ]
            rates = [run.figures["inferences_per_s"].value for run in own]
            label = f"{plain(variant)} {name}"
            axes.errorbar(rates, [each.value / 1e3 for each in found], yerr=errors, marker="o", capsize=3, label=label)
    if objective_ms is not None:
        axes.axhline(objective_ms, color="0.3", linestyle="--", label="objective")
    axes.set_xlabel("inferences a second")
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    if shown:
        axes.legend()


def plain(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar sign would begin mathematics."""
    return printable(text).replace("$", r"\$")


def _figure(path: Path, size: tuple[float, float]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise PlanError("plots need matplotlib: pip install 'erg[loadtest]'") from None
    if path.suffix != ".png":
        raise PlanError(f"{path}: a plot is a .png")
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}") from None


def _tail(result: LoadResult) -> tuple[list[float], list[float]]:
    ordered = np.sort(result.latencies_ns) / 1e6
    count = len(ordered)
    # Evenly in nines, so that a long run keeps its last samples and needs no more points than the picture has.
    shares = 1 - np.logspace(0, -np.log10(count + 1), num=min(count, _MAX_POINTS))
    indexes = np.unique(np.minimum((shares * count).astype(np.int64), count - 1))
    return [_nines(index / count) for index in indexes], ordered[indexes].tolist()


def _nines(share: float) -> float:
    return float(-np.log10(1 - share))
