"""Pictures of a conversion: accuracy against cost with the front, and what each variant saves by shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

from erg_converters.front import cost_ratios
from erg_converters.report import SOURCE_CANDIDATE, CandidateRecord, Report

mpl.use("Agg")

# After Okabe and Ito, "Color Universal Design" (2008): told apart by those who see fewer colours.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")


def draw_front(report: Report, path: Path) -> None:
    """Write a PNG: on the left what variants lose against what they cost, on the right their speed by shape."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (after the back end is chosen)

    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    colours = {each.name: COLOURS[index % len(COLOURS)] for index, each in enumerate(report.candidates)}
    _draw_candidates(left, report, colours)
    _draw_speed(right, report, colours)
    figure.suptitle(f"{report.model}: chosen is {report.chosen or 'none'}", x=0.01, ha="left", weight="bold")
    figure.savefig(path, format="png")


def _draw_candidates(axes: Any, report: Report, colours: dict[str, str]) -> None:
    costs = cost_ratios(report.measurements)
    for record in report.candidates:
        drop = _drop(record)
        if drop is None:
            continue
        cost = costs.get(record.name)
        if cost is None:
            # It was refused, so nobody timed it: what it loses is shown at the edge.
            axes.axhline(drop, color=colours[record.name], lw=0.8, ls=":", zorder=1)
            axes.annotate(
                f"{record.name}: refused, not timed",
                (1, drop), xycoords=("axes fraction", "data"), xytext=(-4, 3), textcoords="offset points",
                ha="right", fontsize=8, color=colours[record.name],
            )  # fmt: skip
            continue
        axes.errorbar(
            [cost], [drop], yerr=_errors(record, drop), fmt="o", ms=8 if record.name == report.chosen else 5,
            color=colours[record.name], capsize=3, zorder=3,
        )  # fmt: skip
        label = f"{record.name} (chosen)" if record.name == report.chosen else record.name
        axes.annotate(label, (cost, drop), xytext=(7, 5), textcoords="offset points", fontsize=9)
    on_front = [each for name in report.front if (each := report.candidate(name)) is not None]
    line = [(costs[each.name], _drop(each) or 0.0) for each in on_front]
    axes.step([cost for cost, _ in line], [drop for _, drop in line], where="post", color="#999999", lw=1, zorder=2)
    axes.set_xscale("log")
    axes.set_xlabel("CPU time over the source's (less is cheaper)")
    metric = next((each.accuracy.metric for each in report.candidates if each.accuracy), "metric")
    axes.set_ylabel(f"drop of {metric} (less is better)")
    ticks = [tick for tick in (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0) if _near(tick, list(costs.values()))]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    _plain(axes)


def _draw_speed(axes: Any, report: Report, colours: dict[str, str]) -> None:
    names = [each.name for each in report.candidates if any(m.variant == each.name for m in report.measurements)]
    shapes = [(m.batch_size, m.length) for m in report.measurements if m.variant == SOURCE_CANDIDATE]
    others = [name for name in names if name != SOURCE_CANDIDATE]
    width = 0.8 / max(1, len(others))
    for index, name in enumerate(others):
        found = {(m.batch_size, m.length): m.cpu_ratio or 0.0 for m in report.measurements if m.variant == name}
        at = [position + index * width for position in range(len(shapes))]
        bars = axes.bar(at, [found.get(shape, 0.0) for shape in shapes], width * 0.9, label=name, color=colours[name])
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    axes.axhline(1.0, color="#666666", lw=1)
    middle = 0.4 - width / 2
    axes.set_xticks([position + middle for position in range(len(shapes))], [_shape(*shape) for shape in shapes])
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylabel("times cheaper than the source (CPU)")
    if others:
        axes.legend(fontsize=8, frameon=False)
    _plain(axes)


def _shape(batch: int, length: int | None) -> str:
    return f"batch {batch}" if length is None else f"batch {batch}\n{length} long"


def _near(tick: float, costs: list[float]) -> bool:
    return bool(costs) and min(costs) / 2 <= tick <= max(costs) * 2


def _drop(record: CandidateRecord) -> float | None:
    if record.name == SOURCE_CANDIDATE:
        return 0.0
    return record.accuracy.drop if record.accuracy else None


def _errors(record: CandidateRecord, drop: float) -> list[list[float]] | None:
    accuracy = record.accuracy
    if accuracy is None or accuracy.drop_low is None or accuracy.drop_high is None:
        return None
    return [[max(0.0, drop - accuracy.drop_low)], [max(0.0, accuracy.drop_high - drop)]]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee", zorder=0)
    axes.set_axisbelow(True)
