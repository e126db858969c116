"""A worker that takes as long as it is told and gives back what it was given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence

from erg_server.errors import ErgError, UnavailableError
from erg_server.simulation.virtual_time import VirtualTimers
from erg_server.workers.process import BatchInput, BatchOutput, BatchResult

OnDone = Callable[[BatchResult | ErgError], None]


class SimulatedWorker:
    """Echoes a batch's inputs after `duration_ns(handle, rows)`; runs one batch and stages another, as workers do.

    It has every model, or those in `models`, which `changed` must be called after changing.
    """

    slots = 2

    def __init__(
        self,
        name: str,
        timers: VirtualTimers,
        duration_ns: Callable[[int, int], int],
        *,
        models: Collection[int] | None = None,
        slot_bytes: int = 1 << 20,
    ) -> None:
        self.name = name
        self.slot_bytes = slot_bytes
        self.duration_ns = duration_ns
        self.models = models
        self.ready = True
        self.loads = 0
        self.busy_ns = 0
        """Time spent on batches that ended."""
        self.batches: list[tuple[int, int]] = []
        """Start and rows of each batch, unless `records` is off."""
        self.records = True
        self.available: Callable[[SimulatedWorker], None] = lambda _: None
        self._timers = timers
        self._held: deque[tuple[OnDone, list[BatchOutput], int, int]] = deque()

    @property
    def free_slots(self) -> int:
        """Batches it would take now."""
        return self.slots - len(self._held) if self.ready else 0

    def has_model(self, handle: int) -> bool:
        """Whether it has the model and lives."""
        return self.ready and (self.models is None or handle in self.models)

    def submit(self, handle: int, inputs: Sequence[BatchInput], on_done: OnDone, rows: int) -> None:
        """See `scheduling.ports.SchedulableWorker`.

        Raises:
            RuntimeError: it holds two batches already, or does not have the model.
        """
        if self.free_slots < 1 or not self.has_model(handle):
            raise RuntimeError(f"worker {self.name} was given a batch of {handle} that it cannot take")
        outputs = []
        for item in inputs:
            data = memoryview(bytearray(item.nbytes))
            item.write(data)
            outputs.append(BatchOutput(index=item.index, datatype=item.datatype, shape=item.shape, data=data))
        self._held.append((on_done, outputs, rows, handle))
        if len(self._held) == 1:
            self._start()

    def kill(self) -> None:
        """Die: what it holds fails."""
        held = list(self._held)
        self._held.clear()
        self.ready = False
        self.loads += 1
        for on_done, *_ in held:
            on_done(UnavailableError(f"worker {self.name} died"))

    def revive(self) -> None:
        """Come back with the models it had."""
        self.ready = True
        self.changed()

    def changed(self) -> None:
        """Tell that it has other models than before."""
        self.loads += 1
        self.available(self)

    def _start(self) -> None:
        current = self._held[0]
        _, _, rows, handle = current
        if self.records:
            self.batches.append((self._timers.clock.now_ns(), rows))
        duration_ns = self.duration_ns(handle, rows)
        at_ns = self._timers.clock.now_ns() + duration_ns
        self._timers.call_at(at_ns, lambda: self._finish(current, duration_ns))

    def _finish(self, current: tuple[OnDone, list[BatchOutput], int, int], duration_ns: int) -> None:
        if not self._held or self._held[0] is not current:
            return  # it was killed meanwhile
        self.busy_ns += duration_ns
        ended_ns = self._timers.clock.now_ns()
        current[0](BatchResult(outputs=current[1], input_ns=0, infer_ns=duration_ns, output_ns=0, ended_ns=ended_ns))
        self._held.popleft()
        if self._held:
            self._start()
        self.available(self)
