"""A hardware counter of energy that wraps, is reset, or does not answer, made one that only grows."""

from __future__ import annotations

import logging
from typing import Final

log = logging.getLogger(__name__)

_MOST_WATTS: Final = 20_000
"""More than any package or GPU takes: a wrap that would mean more was none, but a reset."""


class EnergyCounter:
    """Microjoules since the first reading. A missing reading loses nothing: the next one tells what it would have.

    `range_uj` is where a counter starts at 0 again, 0 for one that does not. One that went back for any other reason
    was reset: it counts on from there, and what it counted between its last reading and the reset is lost.
    """

    def __init__(self, name: str, range_uj: int = 0) -> None:
        self.total_uj = 0
        self.resets = 0
        self._name = name
        self._range_uj = range_uj
        self._last_uj: int | None = None
        self._last_ns = 0

    def observe(self, now_ns: int, raw_uj: int) -> int:
        """Take in a reading and return the total so far."""
        if self._last_uj is not None:
            self.total_uj += self._step(now_ns, raw_uj, self._last_uj)
        self._last_uj, self._last_ns = raw_uj, now_ns
        return self.total_uj

    def _step(self, now_ns: int, raw_uj: int, last_uj: int) -> int:
        if raw_uj >= last_uj:
            return raw_uj - last_uj
        wrapped_uj = self._range_uj - last_uj + raw_uj
        if last_uj <= self._range_uj and wrapped_uj <= _MOST_WATTS * (now_ns - self._last_ns) // 1000:
            return wrapped_uj
        self.resets += 1
        log.warning("the energy counter of %s went back from %d to %d µJ: it counts anew", self._name, last_uj, raw_uj)
        return 0
