"""Addresses on loopback from which every byte takes its time, as between machines, so that messages cross."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

READ_BYTES = 64 << 10


class SlowNetwork:
    """Relays connections, in a thread of its own; `delay_s` is one way."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []

    def link(self, host: str, port: int, target: str) -> None:
        """Listen on `host`:`port` for what `target`, a host and port, is to get."""
        asyncio.run_coroutine_threadsafe(self._listen(host, port, target), self._loop).result(10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self, host: str, port: int, target: str) -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there = await asyncio.open_connection(*target.split(":"))
                try:
                    await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
                finally:
                    there[1].transport.abort()
            writer.transport.abort()
            self._tasks.discard(task)

        self._servers.append(await asyncio.start_server(accept, host, port))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(READ_BYTES):
            self._loop.call_later(self._delay_s, _write, writer, data)
        await asyncio.sleep(self._delay_s)
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
