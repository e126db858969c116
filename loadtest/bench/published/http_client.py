"""HTTP/1.1 for a load: prepared requests, kept connections, one request at a time on each.

No library: what a client costs is taken from the server on a machine that they share, and the general ones cost
several times what is needed to find the end of an answer that says its length.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self, cast

from erg_loadtest.dispatch import Send
from erg_loadtest.errors import ServerError
from erg_loadtest.samples import OK, STATUS_NAMES

_MAX_HEAD_BYTES = 64 << 10
_STATUS = {
    400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED", 422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


class Answer(NamedTuple):
    """One response, whole."""

    status: int
    body: bytes


def request_bytes(path: str, host: str, body: bytes) -> bytes:
    """A POST as it goes over the wire."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode("ascii") + body


def take_answer(received: bytearray) -> Answer | None:
    """Cut the first answer off what was received; None where it is not all there yet.

    Raises:
        ServerError: it is no HTTP/1.1 answer with a length.
    """
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        if len(received) > _MAX_HEAD_BYTES:
            raise ServerError(f"an answer's head has more than {_MAX_HEAD_BYTES} bytes")
        return None
    lines = bytes(received[:head_end]).split(b"\r\n")
    version, _, rest = lines[0].partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ServerError(f"'{lines[0][:80].decode(errors='replace')}' is no status line of HTTP/1.1")
    length = None
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
    if length is None:
        raise ServerError("an answer does not say its length")
    end = head_end + 4 + length
    if len(received) < end:
        return None
    body = bytes(received[head_end + 4 : end])
    del received[:end]
    return Answer(status=int(rest[:3]), body=body)


class _Connection(asyncio.Protocol):
    """One connection; owned by the event loop's thread."""

    def __init__(self, on_lost: Callable[[_Connection], None]) -> None:
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._on_lost = on_lost
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are not of this class, though they do all that it does.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            answer = take_answer(self._received)
        except ServerError as error:
            self._fail(error)
            self.close()
            return
        if answer is not None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        if not self.closed.done():
            self.closed.set_result(None)
        self._fail(ServerError(f"the server closed a connection: {exc or 'without a word'}"))

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: ServerError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


class HttpClient:
    """As many connections to one server as requests were ever in flight. An async context manager."""

    def __init__(self, host: str, port: int, *, path: str, bodies: tuple[bytes, ...]) -> None:
        self._address = (host, port)
        self._requests = tuple(request_bytes(path, f"{host}:{port}", body) for body in bodies)
        self._all: set[_Connection] = set()
        self._free: list[_Connection] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in tuple(self._all):
            connection.close()
            await connection.closed

    async def ask(self, index: int) -> Answer:
        """Send the prepared request of that index; raises ServerError."""
        try:
            connection = self._free.pop() if self._free else await self._connect()
        except OSError as error:
            raise ServerError(str(error)) from error
        try:
            answer = await connection.ask(self._requests[index])
        except BaseException:
            # An answer may still be under way on it, and would be taken for the next request's.
            connection.close()
            raise
        self._free.append(connection)
        return answer

    def sender(self) -> Send:
        """What `dispatch.drive` needs."""

        async def send(index: int) -> int:
            try:
                status = (await self.ask(index)).status
            except ServerError:
                return STATUS_NAMES.index("UNAVAILABLE")
            return OK if status == 200 else STATUS_NAMES.index(_STATUS.get(status, "UNKNOWN"))

        return send

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: _Connection(self._forget), *self._address)
        self._all.add(connection)
        return connection

    def _forget(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
