"""Pictures of a run; matplotlib is an extra, asked for only when a picture is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from erg_loadtest.errors import PlanError
from erg_loadtest.result import LoadResult

_MAX_POINTS = 5000


def save_latency_plot(path: Path, results: Mapping[str, LoadResult]) -> None:
    """The share of requests answered within each latency, one line a run, the tail drawn to scale of its nines."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise PlanError("plots need matplotlib: pip install 'erg[loadtest]'") from None
    if path.suffix != ".png":
        raise PlanError(f"{path}: a plot is a .png")
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.savefig(path, dpi=120)


def _tail(result: LoadResult) -> tuple[list[float], list[float]]:
    ordered = np.sort(result.latencies_ns) / 1e6
    count = len(ordered)
    # Evenly in nines, so that a long run keeps its last samples and needs no more points than the picture has.
    shares = 1 - np.logspace(0, -np.log10(count + 1), num=min(count, _MAX_POINTS))
    indexes = np.unique(np.minimum((shares * count).astype(np.int64), count - 1))
    return [_nines(index / count) for index in indexes], ordered[indexes].tolist()


def _nines(share: float) -> float:
    return float(-np.log10(1 - share))
