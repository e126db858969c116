"""Sends requests when they are due and records what came of them; knows neither gRPC nor the real clock."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from erg_loadtest.arrivals import NS_PER_S, Arrivals, ClosedLoop, Limit, OpenLoop, due_offsets_ns
from erg_loadtest.samples import Recorder, Samples

Send = Callable[[int], Awaitable[int]]
"""Sends the prepared request of that index and returns its status; raises only when the run cannot go on."""

DEFAULT_MAX_IN_FLIGHT = 4096


class Timer(Protocol):
    """A monotonic clock that can be waited on, so that tests run on a virtual one."""

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary fixed point."""
        ...

    async def sleep_until(self, when_ns: int) -> None:
        """Return at `when_ns`, or at once when that has passed."""
        ...


def precise_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes up to the microsecond.

    Python rounds epoll's and poll's time-outs up to whole milliseconds, which made an open loop 0.84 ms late on
    average; select's it leaves alone, and a client has few descriptors.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


class MonotonicTimer:
    """The machine's monotonic clock; one reading means the same in every process of the machine."""

    now_ns = staticmethod(time.monotonic_ns)

    async def sleep_until(self, when_ns: int) -> None:
        """Sleep; how late the event loop wakes is shown by the report as send delay."""
        delay_ns = when_ns - time.monotonic_ns()
        if delay_ns > 0:
            await asyncio.sleep(delay_ns / NS_PER_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What to send: indexes of the prepared requests, taken in turn from `offset` on."""

    send: Send
    distinct: int
    offset: int = 0

    def payload(self, sequence: int) -> int:
        """The prepared request that the run's `sequence`-th request sends."""
        return (self.offset + sequence) % self.distinct


async def drive(
    *,
    arrivals: Arrivals,
    limit: Limit,
    requests: Requests,
    timer: Timer,
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
    on_done: Callable[[int], None] | None = None,
) -> Samples:
    """Run the arrivals to their limit, wait for every answer, and return the samples.

    `on_done` is told how many requests have finished so far.
    """
    run = _Run(requests=requests, limit=limit, timer=timer, on_done=on_done)
    if isinstance(arrivals, ClosedLoop):
        await run.closed(arrivals.concurrency)
    else:
        await run.open(arrivals, max_in_flight)
    return run.recorder.samples()


class _Run:
    """One run's mutable state; owned by the event loop's thread."""

    def __init__(
        self, *, requests: Requests, limit: Limit, timer: Timer, on_done: Callable[[int], None] | None
    ) -> None:
        self._requests = requests
        self._limit = limit
        self._timer = timer
        self._on_done = on_done
        self._started = 0
        self.recorder = Recorder()

    async def closed(self, concurrency: int) -> None:
        start_ns = self._timer.now_ns()
        async with asyncio.TaskGroup() as callers:
            for _ in range(concurrency):
                callers.create_task(self._caller(start_ns))

    async def _caller(self, start_ns: int) -> None:
        while self._may_start(self._timer.now_ns() - start_ns):
            sequence = self._take()
            await self._one(sequence, self._timer.now_ns())

    async def open(self, arrivals: OpenLoop, max_in_flight: int) -> None:
        start_ns = self._timer.now_ns()
        # Bounds memory and sockets when the server stalls. A request held back here keeps its due time, so the wait
        # is counted: the bound delays the sending, never the clock.
        room = asyncio.Semaphore(max_in_flight)
        async with asyncio.TaskGroup() as flights:
            for offset_ns in due_offsets_ns(arrivals):
                if not self._may_start(offset_ns):
                    return
                await self._timer.sleep_until(start_ns + offset_ns)
                await room.acquire()
                flights.create_task(self._flight(self._take(), start_ns + offset_ns, room))

    async def _flight(self, sequence: int, due_ns: int, room: asyncio.Semaphore) -> None:
        try:
            await self._one(sequence, due_ns)
        finally:
            room.release()

    async def _one(self, sequence: int, due_ns: int) -> None:
        payload = self._requests.payload(sequence)
        sent_ns = self._timer.now_ns()
        status = await self._requests.send(payload)
        done_ns = self._timer.now_ns()
        self.recorder.add(due_ns=due_ns, sent_ns=sent_ns, done_ns=done_ns, status=status, payload=payload)
        if self._on_done is not None:
            self._on_done(len(self.recorder))

    def _may_start(self, offset_ns: int) -> bool:
        if self._limit.requests is not None and self._started >= self._limit.requests:
            return False
        return self._limit.duration_ns is None or offset_ns < self._limit.duration_ns

    def _take(self) -> int:
        sequence = self._started
        self._started += 1
        return sequence
