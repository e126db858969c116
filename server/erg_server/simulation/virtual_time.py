"""The event loop's timers on a clock that jumps from one to the next. Waits for nothing."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from erg_server.clock import ManualClock


class VirtualTimer:
    """A callback that has not run yet; see `scheduling.ports.Timer`."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Never run it."""
        self.callback = None


class VirtualTimers:
    """Runs callbacks in the order of their times, and in the order in which they were asked for at equal ones."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[int, int, VirtualTimer]] = []
        self._count = 0

    def call_soon(self, callback: Callable[[], None], /) -> None:
        """Run `callback` when the current callbacks are done."""
        self._soon.append(callback)

    def call_later(self, delay_s: float, callback: Callable[[], None], /) -> VirtualTimer:
        """Run `callback` after `delay_s` seconds, rounded to nanoseconds."""
        return self.call_at(self.clock.now_ns() + max(0, round(delay_s * 1e9)), callback)

    def call_at(self, at_ns: int, callback: Callable[[], None], /) -> VirtualTimer:
        """Run `callback` at a time of the clock, now if that is over."""
        timer = VirtualTimer(callback)
        self._count += 1
        heapq.heappush(self._later, (at_ns, self._count, timer))
        return timer

    def settle(self) -> None:
        """Run what is due now without moving the clock."""
        while self._soon:
            batch, self._soon = self._soon, []
            for callback in batch:
                callback()

    def run(self, until_ns: int | None = None, *, max_timers: int | None = None) -> None:
        """Run everything up to `until_ns`, or until nothing is left.

        Raises:
            RuntimeError: more than `max_timers` timers ran, so that what sets timers for ever cannot hang a test.
        """
        ran = 0
        later, clock = self._later, self.clock
        while True:
            self.settle()
            if not later or (until_ns is not None and later[0][0] > until_ns):
                break
            at_ns, _, timer = heapq.heappop(later)
            callback, timer.callback = timer.callback, None
            if callback is None:
                continue
            if at_ns > clock.now_ns():
                clock.advance(at_ns - clock.now_ns())
            callback()
            ran += 1
            if max_timers is not None and ran > max_timers:
                raise RuntimeError(f"the simulation does not come to rest within {max_timers} timers")
        if until_ns is not None and until_ns > clock.now_ns():
            clock.advance(until_ns - clock.now_ns())
