"""Every figure of a run with its interval. Pure: a result in, figures out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from erg_loadtest.blocks import Blocks, blocks_for
from erg_loadtest.consumption import Consumption, Use, consumption
from erg_loadtest.figure import Figure, figure
from erg_loadtest.intervals import percentile, proportion, ratio
from erg_loadtest.load import LoadPlan
from erg_loadtest.result import LoadResult

BATCH_MEANS = "batch means over blocks of time"
WOODRUFF = "order statistics, variance over blocks of time (Woodruff)"
WILSON = "Wilson, effective size from blocks of time"
_TOO_SHORT = "the run is too short to bound it"
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}


def run_consumption(result: LoadResult) -> Consumption:
    """What the run took of the server, by the counters that were read meanwhile."""
    assert result.record is not None
    record = result.record
    good = record.samples.succeeded
    return consumption(
        record.readings,
        record.readings_missing,
        model=result.model,
        version=result.version,
        done_ns=record.samples.done_ns[good],
        rows=np.asarray(record.rows, dtype=np.int64)[record.samples.payload[good]],
    )


def run_figures(plan: LoadPlan, result: LoadResult, spent: Consumption) -> tuple[dict[str, Figure], dict[str, str]]:
    """Figures by name, and why others are not known."""
    figures = _client_figures(result)
    missing: dict[str, str] = {}
    found = {
        "joules_per_1000": _own(spent.energy),
        "joules_per_1000_whole": _whole(spent.energy),
        "usd_per_1000": _own(spent.money),
        "usd_per_1000_whole": _whole(spent.money),
        "cpu_s_per_1000": spent.cpu,
        "watts": spent.power,
        "memory_bytes": spent.memory,
    }
    for name, entry in found.items():
        if isinstance(entry, str):
            missing[name] = entry
        else:
            figures[name] = entry
    cpu = figures.get("cpu_s_per_1000")
    if plan.price is not None and cpu is not None:
        figures["cpu_price_per_1000"] = figure(
            cpu.interval if not cpu.note else cpu.note,
            f"{plan.price.currency} per 1,000",
            method=cpu.method,
            plain=cpu.value,
            factor=plan.price.per_cpu_hour / 3600,
        )
    return figures, missing


def _client_figures(result: LoadResult) -> dict[str, Figure]:
    assert result.record is not None
    samples = result.record.samples
    if not len(samples):
        return {}
    blocks = blocks_for(samples)
    good = samples.succeeded
    rows = np.asarray(result.record.rows, dtype=np.float64)[samples.payload]
    figures = {
        "inferences_per_s": _rate(blocks, good, rows, result.inferences_per_s, "inferences/s"),
        "requests_per_s": _rate(blocks, good, np.ones_like(rows), result.requests_per_s, "requests/s"),
        "success": _success(blocks, good),
    }
    if result.latency is None:
        return figures
    elapsed_us = (samples.done_ns - samples.due_ns)[good] / 1e3
    figures["latency_mean_us"] = _mean(blocks, good, elapsed_us)
    for name, percent in _PERCENTILES.items():
        found = blocks if isinstance(blocks, str) else percentile(elapsed_us, blocks.due[good], percent)
        figures[f"latency_{name}_us"] = figure(
            found, "µs", method=WOODRUFF, plain=result.latency.percentile_us(percent), missing=_TOO_SHORT
        )
    return figures


def _rate(
    blocks: Blocks | str, good: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64], plain: float, unit: str
) -> Figure:
    if isinstance(blocks, str):
        return figure(blocks, unit, method=BATCH_MEANS, plain=plain)
    counted = np.bincount(blocks.done, weights=np.where(good, weights, 0.0), minlength=blocks.count)
    return figure(ratio(counted, [blocks.seconds] * blocks.count), unit, method=BATCH_MEANS, plain=plain)


def _success(blocks: Blocks | str, good: npt.NDArray[np.bool_]) -> Figure:
    hits = np.asarray(good, dtype=np.float64)
    if isinstance(blocks, str):
        return figure(blocks, "share", method=WILSON, plain=float(hits.mean()))
    answered = np.bincount(blocks.due, weights=hits, minlength=blocks.count)
    asked = np.bincount(blocks.due, minlength=blocks.count)
    return figure(proportion(answered, asked), "share", method=WILSON, plain=float(hits.mean()))


def _mean(blocks: Blocks | str, good: npt.NDArray[np.bool_], elapsed_us: npt.NDArray[np.float64]) -> Figure:
    values = np.asarray(elapsed_us, dtype=np.float64)
    if isinstance(blocks, str):
        return figure(blocks, "µs", method=BATCH_MEANS, plain=float(values.mean()))
    where = blocks.due[np.asarray(good, dtype=np.bool_)]
    total = np.bincount(where, weights=values, minlength=blocks.count)
    count = np.bincount(where, minlength=blocks.count)
    return figure(ratio(total, count), "µs", method=BATCH_MEANS, plain=float(values.mean()))


def _own(use: Use | str) -> Figure | str:
    if isinstance(use, str):
        return use
    return use.own or "the server's counter is not by model"


def _whole(use: Use | str) -> Figure | str:
    return use if isinstance(use, str) else use.whole
