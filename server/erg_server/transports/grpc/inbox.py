"""Messages of a stream that its handler has not taken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Inbox:
    """What a handler iterates over. `take` is told each raw message that leaves and gives what the handler sees."""

    __slots__ = ("_ended", "_loop", "_raw", "_take", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[Any], Any]) -> None:
        self._loop = loop
        self._take = take
        self._raw: deque[Any] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Any:
        while not self._raw:
            if self._ended:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._take(self._raw.popleft())

    def put(self, raw: Any) -> None:
        """A message came."""
        self._raw.append(raw)
        self._wake()

    def end(self) -> None:
        """No more will come."""
        self._ended = True
        self._wake()

    def clear(self) -> None:
        """Nobody wants them any more."""
        self._raw.clear()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
