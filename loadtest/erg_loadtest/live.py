"""Progress on standard error while a load runs: how far it is, and how many answers a second."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from erg_loadtest.load import Progress as OnProgress
from erg_loadtest.svg import printable

_WINDOW_S = 2.0
_UPDATE_S = 0.1


class Rate:
    """Events a second over the last seconds. Pure: time is passed in."""

    def __init__(self, window_s: float = _WINDOW_S) -> None:
        self._window_s = window_s
        self._marks: deque[tuple[float, int]] = deque()

    def update(self, now_s: float, done: int) -> float:
        """The rate, now that `done` events happened in all; 0 until two moments are known."""
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now_s, done))
        while len(self._marks) > 2 and self._marks[1][0] <= now_s - self._window_s:
            self._marks.popleft()
        start_s, start = self._marks[0]
        return (done - start) / (now_s - start_s) if now_s > start_s else 0.0


@contextmanager
def progress(*, shown: bool) -> Iterator[OnProgress | None]:
    """What `run_load` tells its progress to; None where it is not shown."""
    if not shown:
        yield None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    # On standard error, so that the report can be piped; gone when done.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, tuple[TaskID, Rate]] = {}
        last_s = 0.0

        def update(phase: str, done: int, total: int | None) -> None:
            nonlocal last_s
            now_s = time.monotonic()
            if phase not in tasks:
                for task, _ in tasks.values():
                    bars.update(task, visible=False)
                tasks[phase] = bars.add_task(escape(printable(phase)), total=total, rate=""), Rate()
            elif now_s - last_s < _UPDATE_S and done != total:
                # It is called for every answer, and drawing would take the client's CPU.
                return
            last_s = now_s
            task, rate = tasks[phase]
            bars.update(task, completed=done, rate=f"{rate.update(now_s, done):,.0f}/s")

        yield update


def titled(progress: OnProgress | None, title: str) -> OnProgress | None:
    """The same progress with the name of a run before its phases."""
    if progress is None:
        return None
    return lambda phase, done, total: progress(f"{title}: {phase}", done, total)
