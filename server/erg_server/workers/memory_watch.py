"""What workers hold now and held at most, looked at in a thread, as often as costs next to nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from erg_server.devices.device import Device
from erg_server.workers.memory_reading import KnownMemory, MemoryReading, MemoryShares, Version, split_memory

MIN_PAUSE_S: Final = 1.0
MAX_SHARE: Final = 0.005
"""Of a core that looking may take."""


class MemoryWatch:
    """Owns the last look at each worker, and every peak since the server started."""

    def __init__(
        self, known: Callable[[], Sequence[KnownMemory]], read: Callable[[Device, int], MemoryReading]
    ) -> None:
        self._known = known
        self._read = read
        self._live: dict[str, MemoryShares] = {}
        self._peaks: dict[tuple[str, str], int] = {}
        self._model_peaks: dict[tuple[Version, str], int] = {}

    async def look(self) -> float:
        """Look at every worker once, and return after how many seconds to look again."""
        known = self._known()
        readings, took_s = await asyncio.to_thread(self._read_all, known)
        self._observe({each.worker: split_memory(each, reading) for each, reading in zip(known, readings, strict=True)})
        return pause_s(took_s)

    def _read_all(self, known: Sequence[KnownMemory]) -> tuple[list[MemoryReading], float]:
        began_s = time.thread_time()
        readings = [self._read(each.device, each.pid) for each in known]
        return readings, time.thread_time() - began_s

    def _observe(self, live: Mapping[str, MemoryShares]) -> None:
        self._live = dict(live)
        for worker, shares in live.items():
            for kind, nbytes in shares.kinds.items():
                most = max(nbytes, shares.kernel_peaks.get(kind, 0), self._peaks.get((worker, kind), 0))
                self._peaks[worker, kind] = most
            for version, nbytes in shares.models.items():
                self._model_peaks[version, worker] = max(nbytes, self._model_peaks.get((version, worker), 0))

    @property
    def workers(self) -> Mapping[tuple[str, str], int]:
        """Bytes by worker and kind at the last look."""
        return {(worker, kind): nbytes for worker, each in self._live.items() for kind, nbytes in each.kinds.items()}

    @property
    def models(self) -> Mapping[tuple[Version, str], int]:
        """Bytes by version and worker at the last look."""
        return {
            (version, worker): nbytes for worker, each in self._live.items() for version, nbytes in each.models.items()
        }

    @property
    def worker_peaks(self) -> Mapping[tuple[str, str], int]:
        """The most that `workers` ever was; of `rss` between looks, too."""
        return self._peaks

    @property
    def model_peaks(self) -> Mapping[tuple[Version, str], int]:
        """The most that `models` was at any look."""
        return self._model_peaks


def pause_s(took_s: float) -> float:
    """Seconds until the next look, after one that took so much CPU time."""
    return max(MIN_PAUSE_S, took_s / MAX_SHARE)
