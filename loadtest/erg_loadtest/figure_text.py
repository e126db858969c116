"""Figures in words: the unit that reads best, the bounds, and the mark of what is modelled."""

from __future__ import annotations

import math
from collections.abc import Callable

from erg_loadtest.figure import Figure
from erg_loadtest.svg import number

_MOST_DIGITS = 4

TITLES = {
    "inferences_per_s": "throughput",
    "requests_per_s": "requests",
    "success": "success",
    "latency_mean_us": "latency mean",
    "latency_p50_us": "latency p50",
    "latency_p90_us": "latency p90",
    "latency_p95_us": "latency p95",
    "latency_p99_us": "latency p99",
    "latency_p999_us": "latency p99.9",
    "joules_per_1000": "energy, the model's accounts",
    "joules_per_1000_whole": "energy, all accounts",
    "usd_per_1000": "cost, the model's accounts",
    "usd_per_1000_whole": "cost, all accounts",
    "cpu_s_per_1000": "server's CPU time",
    "cpu_price_per_1000": "server's CPU time at the price given",
    "watts": "power, all accounts",
    "memory_bytes": "memory",
}
"""Names of figures for people, in the order of reports."""


def value_text(figure: Figure) -> str:
    """The value with its unit; a modelled one says so."""
    unit = "" if figure.unit in {"µs", "bytes", "share"} else f" {figure.unit}"
    mark = " (modelled)" if figure.source == "modelled" else ""
    return _scaled(figure)(figure.value) + unit + mark


def bounds_text(figure: Figure) -> str:
    """`[low, high]`, a question mark where the run does not bound it, "" where there is no interval."""
    if not figure.method:
        return ""
    show = _scaled(figure)
    low, high = ("?" if bound is None else show(bound) for bound in (figure.low, figure.high))
    return f"[{low}, {high}]"


def full_text(figure: Figure, separator: str = " ") -> str:
    """Value and bounds."""
    return f"{value_text(figure)}{separator}{bounds_text(figure)}".rstrip()


def _scaled(figure: Figure) -> Callable[[float], str]:
    if figure.unit == "µs":
        return _scale(figure.value, ((1e6, "s"), (1e3, "ms")), "µs")
    if figure.unit == "bytes":
        return _scale(figure.value, ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")), "B")
    if figure.unit == "share":
        return lambda value: f"{value * 100:.4g} %"
    if figure.low is not None and figure.high is not None and figure.high > figure.low:
        # As many digits as tell the bounds apart, so that an interval never reads as a point.
        apart = 1 - math.floor(math.log10(figure.high - figure.low))
        digits = max(0, min(apart, _MOST_DIGITS - math.floor(math.log10(abs(figure.value) or 1.0))))
        return lambda value: f"{value:,.{digits}f}" if abs(value) >= 0.001 else f"{value:.3g}"
    return number


def _scale(reference: float, units: tuple[tuple[float, str], ...], smallest: str) -> Callable[[float], str]:
    for size, name in units:
        if abs(reference) >= size:
            return lambda value: f"{_digits(value / size)} {name}"
    return lambda value: f"{_digits(value)} {smallest}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
