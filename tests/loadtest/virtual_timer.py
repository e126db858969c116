"""A clock for dispatch that jumps to the next wake-up as soon as every task waits for one."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_SETTLE_PASSES = 20


class VirtualTimer:
    def __init__(self) -> None:
        self._now_ns = 0
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ns(self) -> int:
        return self._now_ns

    async def sleep_until(self, when_ns: int) -> None:
        if when_ns <= self._now_ns:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (when_ns, next(self._order), future))
        await future

    async def sleep(self, delay_ns: int) -> None:
        await self.sleep_until(self._now_ns + delay_ns)

    async def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run to the end, advancing the clock whenever nothing else can move."""
        task = asyncio.create_task(coroutine)
        while not task.done():
            for _ in range(_SETTLE_PASSES):
                await asyncio.sleep(0)
            if task.done():
                break
            assert self._waiting, "deadlock: nothing waits for the clock"
            when_ns, _, future = heapq.heappop(self._waiting)
            self._now_ns = when_ns
            if not future.done():
                future.set_result(None)
        return task.result()
