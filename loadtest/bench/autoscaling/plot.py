"""The figures as a picture: cost against objective for every load, and a flash crowd as the policies see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from bench.autoscaling.cluster import STEP_S
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Of the Okabe-Ito palette, which colour-blind readers tell apart; markers differ as well.
_STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#E69F00", "D"), ("#009E73", "^"), ("#CC79A7", "v"))


def draw(
    path: Path,
    points: Mapping[str, Sequence[tuple[float, float]]],
    replicas: Mapping[str, Sequence[int]],
    needed: Sequence[float],
    *,
    hours: tuple[float, float],
    title: str,
) -> None:
    """Write a PNG.

    Args:
        path: where.
        points: by policy, replica-hours over the bound and share of requests that were not in time, a point a load.
        replicas: by policy, pods at every step of a day.
        needed: what a pod less would not do, at every step.
        hours: which part of the day is shown.
        title: of what the day is.
    """
    figure = Figure(figsize=(11, 4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for (name, found), (colour, marker) in zip(points.items(), _STYLES, strict=False):
        # A log scale has no 0.
        left.scatter([x for x, _ in found], [max(1e-5, y) for _, y in found], color=colour, marker=marker, label=name)
    left.axhline(0.01, color="black", linestyle=":", linewidth=1)
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xticks([1, 1.5, 2, 3, 5], ["1", "1.5", "2", "3", "5"])
    left.minorticks_off()
    left.set_xlabel("replica-hours, times the lower bound")
    left.set_ylabel("requests not in time (dotted: 1 %)")
    left.set_title("every load, one setting for all of them", fontsize=10)
    first, last = (round(hour * 3600 / STEP_S) for hour in hours)
    at = np.arange(first, last) * STEP_S / 3600
    right.plot(at, needed[first:last], color="black", linestyle=":", label="least at every moment")
    for (name, counts), (colour, _) in zip(replicas.items(), _STYLES, strict=False):
        right.plot(at, counts[first:last], color=colour, label=name, drawstyle="steps-post")
    right.set_xlabel("hour of the day")
    right.set_ylabel("pods")
    right.set_title(title, fontsize=10)
    for axes in (left, right):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=110, metadata={"Software": None})
