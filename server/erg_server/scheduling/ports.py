"""What the scheduler asks of the outside: workers that take batches, and timers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from erg_server.errors import ErgError
from erg_server.workers.process import BatchInput, BatchResult


class SchedulableWorker(Protocol):
    """What the scheduler asks of a worker; `workers.supervisor.Worker` and the tests' fake are two of them."""

    name: str
    slots: int
    slot_bytes: int

    @property
    def loads(self) -> int:
        """Changes whenever `has_model` may answer otherwise."""
        ...

    @property
    def free_slots(self) -> int:
        """Batches it would take now; 0 unless it is ready."""
        ...

    def has_model(self, handle: int) -> bool:
        """Whether the model is loaded there."""
        ...

    def submit(
        self,
        handle: int,
        inputs: Sequence[BatchInput],
        on_done: Callable[[BatchResult | ErgError], None],
        rows: int,
    ) -> None:
        """Write the batch into a free slot and start it; `on_done` is called once, never from within this call."""
        ...


class Timer(Protocol):
    """A callback that has not run yet."""

    def cancel(self) -> None:
        """Never run it."""
        ...


class Timers(Protocol):
    """The part of an event loop the scheduler uses; a virtual one drives the tests."""

    def call_soon(self, callback: Callable[[], None], /) -> object:
        """Run `callback` when the current callbacks are done."""
        ...

    def call_later(self, delay_s: float, callback: Callable[[], None], /) -> Timer:
        """Run `callback` after `delay_s` seconds."""
        ...
