"""A socket and a loop whose readiness and time are a fuzzer's choice."""

from __future__ import annotations

import asyncio
import errno
from asyncio.constants import LOG_THRESHOLD_FOR_CONNLOST_WRITES
from collections.abc import Callable
from typing import Any

from erg_server.clock import ManualClock


class SteppedLoop(asyncio.SelectorEventLoop):
    """A loop on a clock that moves only when told, so that an input does the same each time it is played."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self.clock.now_ns() / 1e9

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        loop: Any = self
        return [timer for timer in loop._scheduled if not timer.cancelled()]

    async def settle(self, turns: int = 1000) -> None:
        """Let everything happen that can happen now; one that goes on for ever is an error."""
        loop: Any = self
        for _ in range(turns):
            await asyncio.sleep(0)
            if not loop._ready and all(timer.when() > self.time() for timer in self.timers):
                return
        raise AssertionError(f"the loop is still busy after {turns} turns")


class FakeSocket(asyncio.Transport):
    """asyncio's side of a socket. While it is `ready`, what is written has gone; else it waits, up to `high` bytes."""

    def __init__(self, loop: SteppedLoop, protocol: asyncio.BufferedProtocol, came: Callable[[bytes], None]) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._came = came
        self._waiting = bytearray()
        self._paused = False
        self._lost = False
        self._closing = False
        self._late_writes = 0
        self.ready = True
        self.high = 0
        self.reading = True
        self.ended = False
        # Whether the peer's reset shows when the server writes next, or says that it will write no more.
        self.breaks_at_write = False
        self.breaks_at_end = False

    @property
    def gone(self) -> bool:
        """Whether nothing of the peer reaches the server any more."""
        return self._closing

    def take(self, count: int) -> None:
        """The peer takes so many of the bytes that wait."""
        part = bytes(self._waiting[:count])
        del self._waiting[:count]
        if part:
            self._came(part)
        if self._paused and len(self._waiting) <= self.high >> 2:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._waiting:
            self._lose()

    def end(self) -> None:
        """The peer has closed its side."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def write(self, data: Any) -> None:
        assert not self.ended, "written after its end"
        assert len(data), "an empty write"
        if self._closing:
            # asyncio takes it where the peer is to blame, and logs a warning from the fifth on.
            self._late_writes += 1
            assert self.breaks_at_write, "written after it was closed"
            assert self._late_writes < LOG_THRESHOLD_FOR_CONNLOST_WRITES
            return
        if self.breaks_at_write:
            self.abort()
            return
        if self.ready and not self._waiting:
            self._came(bytes(data))
            return
        self._waiting += data
        if len(self._waiting) > self.high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """What the server asks for; the fuzzer's `high` holds."""
        assert high is not None
        assert low is None

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        assert not self.ended
        if self.breaks_at_end:
            raise OSError(errno.ENOTCONN, "the peer has reset the connection")
        self.ended = True

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self.reading = False
        if not self._waiting:
            self._lose()

    def abort(self) -> None:
        self._closing = True
        self.reading = False
        self._waiting.clear()
        self._lose()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = not self._closing

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._protocol.connection_lost, None)
