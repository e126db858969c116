"""A gRPC call that streams in one or both directions."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import Message

from erg_server.errors import CancelledError, ErgError, ResourceExhaustedError, StatusCode
from erg_server.transports.base import Method
from erg_server.transports.grpc.call import GrpcCall
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.outbox import RESPONSE_HEADERS
from erg_server.transports.grpc.status import trailers_block
from erg_server.transports.grpc.stream import Stream

MESSAGE_OVERHEAD_BYTES = 128
"""What a message that waits for its handler costs beside its bytes."""
STREAM_PENDING_BYTES = 1 << 20
"""A handler that streams answers waits while as much as this has not gone out."""


class StreamingCall(GrpcCall):
    """Requests and answers as they come."""

    __slots__ = ("_ended", "_headers_sent", "_inbox", "_message_waiter", "_task")

    def __init__(
        self, connection: Connection, stream: Stream, method: Method, loop: asyncio.AbstractEventLoop, now_ns: int
    ) -> None:
        super().__init__(connection, stream, method, loop, now_ns)
        self._inbox: deque[Any] = deque()
        self._ended = False
        self._headers_sent = False
        self._message_waiter: asyncio.Future[None] | None = None
        self._task = loop.create_task(self._run())

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        """Bytes of a request, for the handler to take."""
        if self._done:
            self._connection.credit(len(payload))
            return
        try:
            for message in self._read(payload):
                self._hold(len(message) + MESSAGE_OVERHEAD_BYTES)
                self._inbox.append(message)
        except ErgError as error:
            self._stop()
            self._end(error)
            return
        self._ended = end_stream
        self._wake_reader()

    def cancelled(self) -> None:
        """The caller has gone: end the handler."""
        if not self._done:
            self._drop_inbox()
            self._release()
            self._stop()

    async def _messages(self) -> AsyncIterator[Message]:
        while True:
            while self._inbox:
                raw = self._inbox.popleft()
                self._connection.hold(-len(raw) - MESSAGE_OVERHEAD_BYTES)
                self._connection.top_up(self._stream)
                self._connection.wake()
                yield self._parse(raw)
                if not self._method.client_streaming:
                    return
            if self._ended:
                return
            self._message_waiter = self._loop.create_future()
            await self._message_waiter

    async def _run(self) -> None:
        handler = self._method.stream
        assert handler is not None
        try:
            async for answer in handler(self._messages(), self._context):
                if self._done:
                    return
                self._send(self._method.serialize(answer))
                await self._room()
        except asyncio.CancelledError:
            if not self._done:
                self._end(CancelledError("the call was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
            self._drop_inbox()
            self._end(error)
        else:
            if not self._done:
                self._drop_inbox()
                self._release()
                self._send_headers()
                self._connection.outbox.trailers(self._stream, trailers_block(StatusCode.OK))
                self._connection.wake()

    def _send(self, parts: Any) -> None:
        size = sum(len(part) for part in parts)
        limit = self._connection.limits.message_bytes
        if size > limit:
            raise ResourceExhaustedError(f"an answer has {size} bytes; at most {limit} are sent")
        self._send_headers()
        self._connection.outbox.message(self._stream, parts, size)
        self._connection.wake()

    def _send_headers(self) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            self._connection.outbox.headers(self._stream, RESPONSE_HEADERS)

    async def _room(self) -> None:
        """Wait while the caller takes nothing."""
        while self._stream.pending_bytes > STREAM_PENDING_BYTES:
            self._stream.drained = self._loop.create_future()
            await self._stream.drained

    def _send_error(self, code: StatusCode, message: str) -> None:
        if self._headers_sent:
            self._connection.outbox.trailers(self._stream, trailers_block(code, message))
        else:
            super()._send_error(code, message)

    def _wake_reader(self) -> None:
        waiter = self._message_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _drop_inbox(self) -> None:
        while self._inbox:
            self._connection.hold(-len(self._inbox.popleft()) - MESSAGE_OVERHEAD_BYTES)

    def _stop(self) -> None:
        self._task.cancel()
