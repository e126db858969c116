"""Shows fetches as bars on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from erg_server.errors import ErgError
from erg_server.storage.fetch_log import FetchLog
from erg_server.storage.fetch_plan import Unit


class FetchBars:
    """A `FetchProgress` of one bar a unit; `counts` is told of everything as well."""

    def __init__(self, counts: FetchLog, bars: Progress) -> None:
        self._counts = counts
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def started(self, unit: Unit, where: str) -> None:
        """Add its bar."""
        self._counts.started(unit, where)
        self._tasks[unit.model, unit.label] = self._bars.add_task(str(unit), total=unit.bytes)

    def advanced(self, unit: Unit, nbytes: int, *, fetched: bool = True) -> None:
        """Move its bar."""
        self._counts.advanced(unit, nbytes, fetched=fetched)
        self._bars.advance(self._tasks[unit.model, unit.label], nbytes)

    def ended(self, unit: Unit, error: ErgError | None) -> None:
        """Leave its bar full, or as far as it came."""
        self._counts.ended(unit, error)
        self._bars.stop_task(self._tasks.pop((unit.model, unit.label)))


def make_bars(console: Console) -> Progress:
    """The columns of a fetch: what, how far, how fast, how long still."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
