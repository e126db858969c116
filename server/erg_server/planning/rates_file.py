"""Reads `rates.toml`: for each model a rate, a pattern, and what its callers are promised."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from erg_server.planning.load_problem import LoadFileError
from erg_server.planning.traffic import PATTERNS, ArrivalPattern, GeneratedArrivals, Load, ModelTraffic
from erg_server.repository.notation import Entry, NotationError, Table, Value
from erg_server.repository.problem import Problem, did_you_mean
from erg_server.repository.toml_document import parse_toml

_KEYS = ("rate_per_s", "arrivals", "objective_ms", "rows", "length", "peak", "burst_share", "burst_s")
_BURST_KEYS = ("peak", "burst_share", "burst_s")
_EXAMPLE = '[models.NAME] with rate_per_s = 50, and if you like arrivals = "bursty", objective_ms = 50, rows = 1'
_MAX_RATE_PER_S = 1e7
_DEFAULTS = GeneratedArrivals(rate_per_s=1.0)


def parse_rates(text: str, path: Path) -> Load:
    """The load that a TOML document states.

    Raises:
        LoadFileError: it is no TOML, or states what makes no sense; every fault is told with its line and key.
    """
    try:
        document = parse_toml(text)
    except NotationError as error:
        problem = Problem(path=str(path), line=error.line, message=error.message, suggestion=f"write {_EXAMPLE}")
        raise LoadFileError([problem]) from None
    reader = _Reader(path)
    models: list[ModelTraffic] = []
    for entry in document.entries:
        if entry.key != "models":
            reader.fault(entry, entry.key, "is no key of a load file", did_you_mean(entry.key, ["models"]))
        elif not isinstance(entry.node, Table):
            reader.fault(entry, "models", "is a table of models", f"write {_EXAMPLE}")
        else:
            models += [traffic for each in entry.node.entries if (traffic := reader.model(each)) is not None]
    if not models and not reader.problems:
        reader.problems.append(Problem(path=str(path), message="names no model", suggestion=f"write {_EXAMPLE}"))
    if reader.problems:
        raise LoadFileError(reader.problems)
    return Load(models=tuple(models))


class _Reader:
    """Collects what is wrong with the document while it is read."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self.problems: list[Problem] = []

    def fault(self, entry: Entry, key: str, message: str, suggestion: str) -> None:
        problem = Problem(path=self._path, line=entry.line, key=key, message=message, suggestion=suggestion)
        self.problems.append(problem)

    def model(self, entry: Entry) -> ModelTraffic | None:
        """One model's table; None where something is wrong with it."""
        key = f"models.{entry.key}"
        if not isinstance(entry.node, Table):
            self.fault(entry, key, "is a table", f"write {_EXAMPLE}")
            return None
        before = len(self.problems)
        stated = {each.key: each for each in entry.node.entries}
        for name, each in stated.items():
            if name not in _KEYS:
                self.fault(each, f"{key}.{name}", "is no key of a model's load", did_you_mean(name, _KEYS))
        if "rate_per_s" not in stated:
            self.fault(entry, f"{key}.rate_per_s", "is missing", "write the requests a second, as rate_per_s = 50")
        pattern = self._pattern(stated.get("arrivals"), key)
        bursty = [stated[name] for name in _BURST_KEYS if name in stated]
        if pattern != "bursty":
            for each in bursty:
                hint = 'write arrivals = "bursty", or leave it out'
                self.fault(each, f"{key}.{each.key}", "is for bursty arrivals alone", hint)
        arrivals = GeneratedArrivals(
            rate_per_s=self._number(stated.get("rate_per_s"), key, 1.0, most=_MAX_RATE_PER_S),
            pattern=pattern,
            rows=self._whole(stated.get("rows"), key, 1),
            peak=self._number(stated.get("peak"), key, _DEFAULTS.peak),
            burst_share=self._number(stated.get("burst_share"), key, _DEFAULTS.burst_share, most=0.99),
            burst_s=self._number(stated.get("burst_s"), key, _DEFAULTS.burst_s),
        )
        if bursty and arrivals.peak * arrivals.burst_share > 1:
            hint = (
                f"peak times burst_share is {arrivals.peak * arrivals.burst_share:g}; lower one until it is 1 at most"
            )
            self.fault(bursty[0], f"{key}.{bursty[0].key}", "would have bursts alone pass the mean rate", hint)
        traffic = ModelTraffic(
            name=entry.key,
            arrivals=arrivals,
            objective_ns=round(self._number(stated.get("objective_ms"), key, 0.0) * 1e6),
            length=self._whole(stated["length"], key, 1) if "length" in stated else None,
            place=f"{self._path}:{entry.line}",
        )
        return traffic if len(self.problems) == before else None

    def _pattern(self, entry: Entry | None, key: str) -> ArrivalPattern:
        if entry is None:
            return "poisson"
        value = entry.node.value if isinstance(entry.node, Value) else None
        for pattern in PATTERNS:
            if value == pattern:
                return pattern
        hint = did_you_mean(value, PATTERNS) if isinstance(value, str) else f"allowed: {', '.join(PATTERNS)}"
        self.fault(entry, f"{key}.arrivals", f"cannot be {entry.node.describe()}", hint)
        return "poisson"

    def _number(self, entry: Entry | None, key: str, default: float, *, most: float = 1e9) -> float:
        if entry is None:
            return default
        return float(
            self._checked(entry, key, default, lambda value: 0 < value <= most, f"a number above 0, to {most:g}")
        )

    def _whole(self, entry: Entry | None, key: str, default: int) -> int:
        if entry is None:
            return default
        wanted = "a whole number from 1 to 1000000"
        return int(self._checked(entry, key, default, lambda value: value == int(value) and 1 <= value <= 1e6, wanted))

    def _checked(self, entry: Entry, key: str, default: float, allowed: Callable[[float], bool], wanted: str) -> float:
        value = entry.node.value if isinstance(entry.node, Value) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and allowed(value):
            return value
        self.fault(entry, f"{key}.{entry.key}", f"cannot be {entry.node.describe()}", f"write {wanted}")
        return default
