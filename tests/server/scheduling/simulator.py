"""A virtual clock, its timers and a worker that takes as long as it is told: they run the real scheduler."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Sequence

from erg_server.clock import ManualClock
from erg_server.errors import ErgError, UnavailableError
from erg_server.workers.process import BatchInput, BatchOutput, BatchResult


class VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled_ = False

    def cancel(self) -> None:
        self.cancelled_ = True


class VirtualTimers:
    """The event loop's timers on a clock that jumps from one to the next."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[int, int, VirtualTimer]] = []
        self._count = itertools.count()

    def call_soon(self, callback: Callable[[], None], /) -> None:
        self._soon.append(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None], /) -> VirtualTimer:
        timer = VirtualTimer(callback)
        at_ns = self.clock.now_ns() + max(0, round(delay_s * 1e9))
        heapq.heappush(self._later, (at_ns, next(self._count), timer))
        return timer

    def settle(self) -> None:
        """Run what is due now."""
        while self._soon:
            batch, self._soon = self._soon, []
            for callback in batch:
                callback()

    def run(self, until_ns: int | None = None) -> None:
        """Run everything up to `until_ns`, or until nothing is left; bounded, so that a bug cannot hang a test."""
        for _ in range(100_000):
            self.settle()
            while self._later and self._later[0][2].cancelled_:
                heapq.heappop(self._later)
            if not self._later or (until_ns is not None and self._later[0][0] > until_ns):
                break
            at_ns, _, timer = heapq.heappop(self._later)
            self.clock.advance(max(0, at_ns - self.clock.now_ns()))
            timer.callback()
        else:
            raise AssertionError("the simulation does not come to rest")
        if until_ns is not None and until_ns > self.clock.now_ns():
            self.clock.advance(until_ns - self.clock.now_ns())


class SimulatedWorker:
    """Echoes its inputs after `duration_ns(rows)`; runs one batch and stages another."""

    slots = 2
    slot_bytes = 1 << 20

    def __init__(self, name: str, timers: VirtualTimers, duration_ns: Callable[[int], int]) -> None:
        self.name = name
        self.batches: list[tuple[int, int]] = []  # (start_ns, rows)
        self.ready = True
        self.loads = 0
        self.available: Callable[[SimulatedWorker], None] = lambda _: None
        self._timers = timers
        self._duration_ns = duration_ns
        self._held: list[tuple[Callable[[BatchResult | ErgError], None], list[BatchOutput], int]] = []

    @property
    def free_slots(self) -> int:
        return self.slots - len(self._held) if self.ready else 0

    def has_model(self, handle: int) -> bool:
        return self.ready

    def submit(
        self,
        handle: int,
        inputs: Sequence[BatchInput],
        on_done: Callable[[BatchResult | ErgError], None],
        rows: int,
    ) -> None:
        assert self.free_slots > 0, "a batch was given to a worker that holds two"
        outputs = []
        for item in inputs:
            data = memoryview(bytearray(item.nbytes))
            item.write(data)
            outputs.append(BatchOutput(index=item.index, datatype=item.datatype, shape=item.shape, data=data))
        self._held.append((on_done, outputs, rows))
        if len(self._held) == 1:
            self._start()

    def kill(self) -> None:
        held, self._held = self._held, []
        self.ready = False
        self.loads += 1
        for on_done, _, _ in held:
            on_done(UnavailableError(f"worker {self.name} died"))

    def revive(self) -> None:
        self.ready = True
        self.loads = 0
        self.available(self)

    def _start(self) -> None:
        current = self._held[0]
        self.batches.append((self._timers.clock.now_ns(), current[2]))
        self._timers.call_later(self._duration_ns(current[2]) / 1e9, lambda: self._finish(current))

    def _finish(self, current: tuple[Callable[[BatchResult | ErgError], None], list[BatchOutput], int]) -> None:
        if not self._held or self._held[0] is not current:
            return  # it was killed meanwhile
        on_done, outputs, rows = current
        result = BatchResult(outputs=outputs, input_ns=0, infer_ns=self._duration_ns(rows), output_ns=0)
        on_done(result)
        self._held.pop(0)
        if self._held:
            self._start()
        self.available(self)
