"""A gRPC call that streams in one or both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from erg_server.errors import (
    ErgError,
    InternalError,
    ResourceExhaustedError,
    StatusCode,
    UnimplementedError,
)
from erg_server.transports.base import Method
from erg_server.transports.grpc.answers import send_answers
from erg_server.transports.grpc.call import GrpcCall, encoding_of
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.inbox import Inbox
from erg_server.transports.grpc.messages import MIN_COMPRESSED_BYTES, compress, whole_message
from erg_server.transports.grpc.outbox import OK_TRAILERS, RESPONSE_HEADERS
from erg_server.transports.grpc.status import RESPONSE_BLOCKS, trailers_block
from erg_server.transports.grpc.stream import Stream

MESSAGE_OVERHEAD_BYTES: Final = 128
"""What a message that waits for its handler costs beside its bytes."""
STREAM_PENDING_BYTES: Final = 1 << 20
"""A handler that streams answers waits while as much as this has not gone out."""


class StreamingCall(GrpcCall):
    """Requests and answers as they come."""

    __slots__ = ("_asked", "_encoding", "_headers_sent", "_inbox", "_task")

    def __init__(
        self, connection: Connection, stream: Stream, method: Method, loop: asyncio.AbstractEventLoop, now_ns: int
    ) -> None:
        super().__init__(connection, stream, method, loop, now_ns)
        self._inbox = Inbox(loop, self._take)
        self._asked = False
        self._headers_sent = False
        self._encoding = encoding_of(stream.head)
        handler: Any = method.stream_bytes or method.stream
        self._task = loop.create_task(send_answers(self, lambda: handler(self._inbox, self._context)))

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        """Bytes of a request, for the handler to take."""
        if self._done:
            self._connection.credit(len(payload))
            return
        try:
            # Nothing of a message that came in parts is left over: this payload may be one whole.
            limit = self._connection.limits.message_bytes
            whole = whole_message(payload, limit) if self._held <= self._kept_bytes else None
            for message in self._read(payload) if whole is None else self._take_whole(payload, whole):
                if self._asked and not self._method.client_streaming:
                    raise UnimplementedError("the call takes one message, and more came")
                self._asked = True
                self._keep(len(message) + MESSAGE_OVERHEAD_BYTES)
                self._inbox.put(message)
            if end_stream:
                if self._held > self._kept_bytes or not (self._asked or self._method.client_streaming):
                    raise InternalError("the call ended before its message was whole")
                self._inbox.end()
        except ErgError as error:
            self._stop()
            self._end(error)
            return
        if self._asked and not self._method.client_streaming:
            self._inbox.end()

    def _take_whole(self, payload: memoryview, message: bytes) -> tuple[bytes]:
        """Account for a message that came in a payload of its own, as `_read` does for others."""
        self._connection.credit(len(payload))
        self._stream.moved_bytes += len(payload) + self._connection.limits.stall_bytes
        return (message,)

    @property
    def incomplete(self) -> bool:
        """Whether the caller began a message and has not ended it."""
        return self._held > self._kept_bytes

    def cancelled(self) -> None:
        """The caller has gone: end the handler."""
        if not self._done:
            self._release()
            self._stop()

    def _release(self) -> None:
        super()._release()
        self._reader = None
        self._inbox.clear()

    def _take(self, raw: Any) -> Any:
        if not self._done:
            self._keep(-len(raw) - MESSAGE_OVERHEAD_BYTES)
            self._connection.top_up(self._stream)
            self._connection.wake()
        return raw if self._method.stream_bytes is not None else self._parse(raw)

    @property
    def over(self) -> bool:
        """Whether nobody takes answers any more."""
        return self._done

    def send(self, answer: Any) -> asyncio.Future[None] | None:
        """Queue one answer. Returns what to wait for before the next, where the caller takes none."""
        self._send(answer if self._method.stream_bytes is not None else self._method.serialize(answer))
        return self.room()

    def room(self) -> asyncio.Future[None] | None:
        """What to wait for while more than a bound has not gone out."""
        if self._stream.pending_bytes <= STREAM_PENDING_BYTES:
            return None
        self._stream.drained = self._loop.create_future()
        return self._stream.drained

    def finish(self) -> None:
        """The handler has given all its answers."""
        if not self._done:
            self._release()
            self._send_headers()
            self._connection.outbox.trailers(self._stream, OK_TRAILERS)
            self._connection.wake()

    def fail(self, error: BaseException) -> None:
        """The handler ended with an error."""
        self._end(error)

    def _send(self, parts: Any) -> None:
        size = sum(map(len, parts))
        limit = self._connection.limits.message_bytes
        if size > limit:
            raise ResourceExhaustedError(f"an answer has {size} bytes; at most {limit} are sent")
        self._send_headers()
        compressed = self._encoding != "identity" and size >= MIN_COMPRESSED_BYTES
        if compressed:
            parts = (compress(b"".join(parts), self._encoding),)
            size = len(parts[0])
        self._connection.outbox.message(self._stream, parts, size, compressed=compressed)
        self._connection.wake()

    def _send_headers(self) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            block = RESPONSE_HEADERS if self._encoding == "identity" else RESPONSE_BLOCKS[self._encoding]
            self._connection.outbox.headers(self._stream, block)

    def _send_error(self, code: StatusCode, message: str, trailers: Iterable[tuple[str, str]]) -> None:
        if self._headers_sent:
            self._connection.outbox.trailers(self._stream, trailers_block(code, message, trailers))
        else:
            super()._send_error(code, message, trailers)

    def _stop(self) -> None:
        self._task.cancel()
