"""Tells in plain lines how fetches go: their start, how far the long ones are, their end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from erg_server.errors import ErgError
from erg_server.storage.fetch_meter import FetchMeter
from erg_server.storage.fetch_plan import Unit

EVERY_S = 10.0
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(slots=True)
class _Fetch:
    began_s: float
    told_s: float
    there: int = 0


class FetchLog:
    """A `FetchProgress` that logs and counts. `now_s` is a monotonic clock in seconds."""

    def __init__(self, logger: logging.Logger, meter: FetchMeter, now_s: Callable[[], float]) -> None:
        self._logger = logger
        self._meter = meter
        self._now_s = now_s
        self._fetches: dict[tuple[str, str], _Fetch] = {}

    def started(self, unit: Unit, where: str) -> None:
        """Log what is fetched from where."""
        now_s = self._now_s()
        self._fetches[unit.model, unit.label] = _Fetch(now_s, now_s)
        self._logger.info("fetching %s from %s: %s", unit, where, size_text(unit.bytes))

    def advanced(self, unit: Unit, nbytes: int, *, fetched: bool = True) -> None:
        """Log how far it is, from time to time."""
        fetch = self._fetches[unit.model, unit.label]
        fetch.there += nbytes
        if fetched:
            self._meter.fetched_bytes += nbytes
        now_s = self._now_s()
        if now_s - fetch.told_s >= EVERY_S:
            fetch.told_s = now_s
            self._logger.info("fetching %s: %s of %s", unit, size_text(fetch.there), size_text(unit.bytes))

    def ended(self, unit: Unit, error: ErgError | None) -> None:
        """Log how long it took; what failed is told by whoever asked for it."""
        fetch = self._fetches.pop((unit.model, unit.label))
        seconds = self._now_s() - fetch.began_s
        if error is not None:
            self._meter.fetch_failures += 1
            return
        self._meter.fetches += 1
        self._meter.seconds += seconds
        self._logger.info("fetched %s: %s in %.1f s", unit, size_text(unit.bytes), seconds)


def size_text(nbytes: int) -> str:
    """Bytes for people: 1.5 GiB."""
    size = float(nbytes)
    for unit in _UNITS[:-1]:
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"
