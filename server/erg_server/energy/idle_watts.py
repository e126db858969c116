"""What a domain takes when nothing runs, learnt from the moments in which nothing did."""

from __future__ import annotations

from collections import deque
from typing import Final

_WINDOW_NS: Final = 1_000_000_000
"""Counters move in steps of up to 100 ms, so that one short interval may hold two steps or none."""
_WINDOWS: Final = 120


class IdleWatts:
    """The low decile of the mean power of the last quiet windows of a second.

    The lowest would be one window's error of measurement. The median would follow whatever else uses the device in
    quiet moments; and a GPU keeps its clocks up for seconds after it ran, which is not what it idles at.
    """

    def __init__(self, stated: float | None = None) -> None:
        self.watts = 0.0 if stated is None else stated
        self.known = stated is not None
        self._stated = stated is not None
        self._windows: deque[float] = deque(maxlen=_WINDOWS)
        self._quiet_ns = 0
        self._quiet_uj = 0

    def observe(self, elapsed_ns: int, energy_uj: int, *, quiet: bool) -> None:
        """Take in what an interval took; `quiet` says that nothing ran in it."""
        if self._stated:
            return
        if not quiet:
            self._quiet_ns = self._quiet_uj = 0
            return
        self._quiet_ns += elapsed_ns
        self._quiet_uj += energy_uj
        if self._quiet_ns >= _WINDOW_NS:
            self._windows.append(self._quiet_uj * 1e3 / self._quiet_ns)
            self._quiet_ns = self._quiet_uj = 0
            self.watts = sorted(self._windows)[len(self._windows) // 10]
            self.known = True

    def energy_uj(self, elapsed_ns: int) -> int:
        """What the domain takes in a time without work."""
        return round(self.watts * elapsed_ns / 1e3)
