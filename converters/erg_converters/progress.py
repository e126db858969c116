"""Shows each step of a conversion with its clock and bar while it runs, and keeps what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from erg_server.errors import ErgError
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from erg_converters.report import Status, StepRecord

_COLOURS = {"done": "green", "cached": "cyan", "failed": "red", "skipped": "dim"}


@dataclass(slots=True)
class RunningStep:
    """A step under way: whoever runs it reports how far it is and sets what it found."""

    progress: Progress
    task: TaskID
    status: Status = "done"
    figures: Mapping[str, str] = field(default_factory=dict)
    cached_seconds: float | None = None
    """What it took when it ran, of a step whose result was there already."""

    def advance(self, done: int, total: int) -> None:
        """Show that `done` of `total` parts are done."""
        self.progress.update(self.task, completed=done, total=total)


class Steps:
    """The steps of one run, in order. `ended` is called after each, so that a run that is killed has left its trace."""

    def __init__(self, console: Console, ended: Callable[[], None] = lambda: None) -> None:
        self.ended = ended
        self.records: list[StepRecord] = []
        self.progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            console=console,
            # Without a terminal rich would show its bars once, at the end; the lines of ended steps are all there is.
            disable=not console.is_terminal,
            transient=True,
        )

    @contextmanager
    def step(self, name: str, candidate: str = "") -> Iterator[RunningStep]:
        """Run one step; an ErgError is recorded as its failure, and raised on."""
        label = f"{candidate}: {name}" if candidate else name
        running = RunningStep(self.progress, self.progress.add_task(label, total=None))
        began_s = time.monotonic()
        message = ""
        try:
            yield running
        except BaseException as error:
            running.status = "failed"
            message = error.message if isinstance(error, ErgError) else str(error) or type(error).__name__
            raise
        finally:
            seconds = time.monotonic() - began_s
            record = StepRecord(
                name=name,
                candidate=candidate,
                status=running.status,
                seconds=seconds if running.cached_seconds is None else running.cached_seconds,
                figures=dict(running.figures),
                message=message,
            )
            self.records.append(record)
            told = message or ", ".join(f"{key} {value}" for key, value in running.figures.items())
            self.progress.remove_task(running.task)
            self._tell(label, running.status, f"{record.seconds:.1f} s", told)
            self.ended()

    def skip(self, name: str, candidate: str, why: str) -> None:
        """Record a step that will not be run."""
        self.records.append(StepRecord(name=name, candidate=candidate, status="skipped", message=why))
        self._tell(f"{candidate}: {name}" if candidate else name, "skipped", "", why)

    def _tell(self, label: str, status: str, took: str, told: str) -> None:
        """One line for good, above the bars that move; whole, since logs of machines without a terminal keep it."""
        line = Text.assemble(f"{label} ", (status, _COLOURS[status]), f" {took}".rstrip(), f": {told}" if told else "")
        self.progress.console.print(line, soft_wrap=True, highlight=False)
