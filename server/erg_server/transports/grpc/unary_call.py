"""A gRPC call of one request and one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from erg_server.errors import (
    CancelledError,
    ErgError,
    InternalError,
    ResourceExhaustedError,
    StatusCode,
    UnimplementedError,
)
from erg_server.transports.base import Method
from erg_server.transports.grpc.call import GrpcCall, encoding_of
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.messages import MIN_COMPRESSED_BYTES, compress, whole_message
from erg_server.transports.grpc.outbox import OK_TRAILERS, RESPONSE_HEADERS
from erg_server.transports.grpc.status import RESPONSE_BLOCKS, trailers_block
from erg_server.transports.grpc.stream import Stream


class UnaryCall(GrpcCall):
    """One request, one answer."""

    __slots__ = ("_cancel", "_request")

    def __init__(
        self, connection: Connection, stream: Stream, method: Method, loop: asyncio.AbstractEventLoop, now_ns: int
    ) -> None:
        super().__init__(connection, stream, method, loop, now_ns)
        self._request: Any = None
        self._cancel: Callable[[], object] | None = None

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        """Bytes of the request; with its end, the handler starts."""
        if self._done:
            self._connection.credit(len(payload))
            return
        if end_stream and self._reader is None and self._request is None:
            whole = whole_message(payload, self._connection.limits.message_bytes)
            if whole is not None:
                self._connection.credit(len(payload))
                self._start(whole)
                return
        try:
            for message in self._read(payload):
                if self._request is not None:
                    raise UnimplementedError("a unary call takes one message, and more came")
                self._request = message
                # Until the call starts, what it waits with is held.
                self._keep(len(message))
            if end_stream:
                if self._request is None or self._held > self._kept_bytes:
                    raise InternalError("the call ended before its message was whole")
                request, self._request = self._request, None
                self._start(request)
        except ErgError as error:
            self._end(error)

    @property
    def incomplete(self) -> bool:
        """Whether the caller still owes (a part of) its request."""
        return not self._done and not self._stream.remote_closed

    def cancelled(self) -> None:
        """The caller has gone: take the request out of the queue."""
        if not self._done:
            self._release()
            self._stop()

    def _start(self, raw: Any) -> None:
        if self._held:
            self._kept_bytes = 0
            self._hold_to(0)
        method = self._method
        try:
            if method.start is not None:
                self._cancel = method.start(raw, self._context, self._finished)
            else:
                assert method.unary is not None
                task = self._loop.create_task(method.unary(self._parse(raw), self._context))
                task.add_done_callback(self._task_done)
                self._cancel = task.cancel
        except Exception as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
            self._end(error)
        if self._done:
            # What cancels holds the request, and the request what it answers: this call.
            self._cancel = None

    def _release(self) -> None:
        super()._release()
        # A call that is over may be kept by a timer or a peer's connection for a while, and its bytes need not be.
        self._reader = self._request = None

    def _task_done(self, task: asyncio.Task[Message]) -> None:
        if task.cancelled():
            self._finished(None, CancelledError("the call was cancelled"))
        elif (error := task.exception()) is not None:
            self._finished(None, error)
        else:
            try:
                parts = self._method.serialize(task.result())
            except Exception as failure:  # noqa: BLE001 (whatever it is, the caller gets a status)
                self._finished(None, failure)
            else:
                self._finished(parts, None)

    def _stop(self) -> None:
        cancel, self._cancel = self._cancel, None
        if cancel is not None:
            cancel()

    def _finished(self, parts: Sequence[bytes | memoryview] | None, error: BaseException | None) -> None:
        if self._done:
            return
        self._cancel = None
        if parts is None:
            self._end(error or InternalError("the call ended without an answer"))
            return
        size = sum(map(len, parts))
        limit = self._connection.limits.message_bytes
        if size > limit:
            self._end(ResourceExhaustedError(f"the answer has {size} bytes; at most {limit} are sent"))
            return
        self._release()
        _send_answer(self._connection, self._stream, parts, size, self._context.trailers)
        self._connection.wake()


def _send_answer(
    connection: Connection, stream: Stream, parts: Any, size: int, metadata: tuple[tuple[str, str], ...]
) -> None:
    outbox = connection.outbox
    encoding = encoding_of(stream.head) if size >= MIN_COMPRESSED_BYTES else "identity"
    if metadata:
        compressed = encoding != "identity"
        if compressed:
            parts = (compress(b"".join(parts), encoding),)
            size = len(parts[0])
        outbox.headers(stream, RESPONSE_BLOCKS[encoding] if compressed else RESPONSE_HEADERS)
        outbox.message(stream, parts, size, compressed=compressed)
        outbox.trailers(stream, trailers_block(StatusCode.OK, "", metadata))
    elif encoding != "identity":
        packed = compress(b"".join(parts), encoding)
        outbox.headers(stream, RESPONSE_BLOCKS[encoding])
        outbox.message(stream, (packed,), len(packed), compressed=True)
        outbox.trailers(stream, OK_TRAILERS)
    else:
        outbox.answer(stream, parts, size)
