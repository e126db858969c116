"""A gRPC call over a stream: what all kinds share, and the unary one."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from google.protobuf.message import DecodeError, Message

from erg_server.errors import (
    CancelledError,
    DeadlineExceededError,
    ErgError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    StatusCode,
    UnimplementedError,
)
from erg_server.transports.base import CallContext, Method
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.messages import MIN_COMPRESSED_BYTES, MessageReader, compress, whole_message
from erg_server.transports.grpc.status import RESPONSE_BLOCKS, error_block, status_of, trailers_block
from erg_server.transports.grpc.stream import Stream

log = logging.getLogger(__name__)


class GrpcCall(abc.ABC):
    """What both kinds share: reading messages, the deadline, ending with a status."""

    __slots__ = ("_connection", "_context", "_done", "_held", "_loop", "_method", "_reader", "_stream", "_timer")

    def __init__(
        self, connection: Connection, stream: Stream, method: Method, loop: asyncio.AbstractEventLoop, now_ns: int
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._method = method
        self._loop = loop
        self._reader: MessageReader | None = None
        self._held = 0
        self._done = False
        self._timer: asyncio.TimerHandle | None = None
        head = stream.head
        timeout_ns = head.timeout_ns
        if timeout_ns is None:
            self._context = CallContext(arrival_ns=now_ns, metadata=head.metadata)
        else:
            self._context = CallContext(arrival_ns=now_ns, deadline_ns=now_ns + timeout_ns, metadata=head.metadata)
            self._timer = loop.call_later(timeout_ns / 1e9, self._expired)

    def _read(self, payload: memoryview) -> list[Any]:
        """The messages that `payload` completes; raises ErgError for a stream that cannot go on."""
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(self._stream.head.encoding, self._connection.limits.message_bytes)
        messages = reader.feed(payload)
        self._connection.credit(len(payload))
        self._hold(reader.held_bytes - self._held)
        self._held = reader.held_bytes
        self._connection.credit_stream(self._stream, reader.wanted_bytes - self._stream.receive_left)
        return messages

    def _hold(self, nbytes: int) -> None:
        if nbytes and not self._connection.hold(nbytes) and nbytes > 0:
            raise ResourceExhaustedError("the server holds too many bytes of requests that have not come whole")

    def _release(self) -> None:
        self._done = True
        if self._held:
            self._connection.hold(-self._held)
            self._held = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _parse(self, raw: Any) -> Message:
        try:
            message: Message = self._method.parse(raw)
        except DecodeError:
            name = self._method.request.DESCRIPTOR.full_name
            raise InvalidArgumentError(f"the message is not a {name}") from None
        return message

    def _expired(self) -> None:
        self._timer = None
        self._stop()
        self._end(DeadlineExceededError("the call's deadline has passed"))

    @abc.abstractmethod
    def _stop(self) -> None:
        """End the handler: nobody waits for it."""

    def _end(self, error: BaseException) -> None:
        """Answer with an error."""
        if self._done:
            return
        self._release()
        status = status_of(error)
        if status is None:
            log.error("%s failed", self._method.path, exc_info=error)
            status = StatusCode.INTERNAL, "internal error; the server's log has the cause"
        self._send_error(*status)
        self._connection.wake()

    def _send_error(self, code: StatusCode, message: str) -> None:
        self._connection.outbox.trailers(self._stream, error_block(code, message))


class UnaryCall(GrpcCall):
    """One request, one answer."""

    __slots__ = ("_request", "_runner")

    def __init__(
        self, connection: Connection, stream: Stream, method: Method, loop: asyncio.AbstractEventLoop, now_ns: int
    ) -> None:
        super().__init__(connection, stream, method, loop, now_ns)
        self._request: Any = None
        self._runner: _Runner | asyncio.Task[Message] | None = None

    def data(self, payload: memoryview, *, end_stream: bool) -> None:
        """Bytes of the request; with its end, the handler starts."""
        if self._done:
            self._connection.credit(len(payload))
            return
        if end_stream and self._reader is None and self._request is None:
            message = whole_message(payload, self._connection.limits.message_bytes)
            if message is not None:
                self._connection.credit(len(payload))
                self._start(message)
                return
        try:
            for message in self._read(payload):
                if self._request is not None:
                    raise UnimplementedError("a unary call takes one message, and more came")
                self._request = message
                # Until the call starts, what it waits with is held.
                self._hold(len(message))
                self._held += len(message)
            if end_stream:
                if self._request is None:
                    raise InternalError("the call ended before its message was whole")
                request, self._request = self._request, None
                self._start(request)
        except ErgError as error:
            self._end(error)

    def cancelled(self) -> None:
        """The caller has gone: take the request out of the queue."""
        if not self._done:
            self._release()
            self._stop()

    def _start(self, raw: Any) -> None:
        if self._held:
            self._connection.hold(-self._held)
            self._held = 0
        method = self._method
        assert method.unary is not None
        try:
            coroutine = method.unary(self._parse(raw), self._context)
        except ErgError as error:
            self._end(error)
            return
        if method.inline:
            self._runner = _Runner(coroutine, self._finished)
            self._runner.step()
        else:
            task = self._runner = self._loop.create_task(coroutine)
            task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[Message]) -> None:
        if task.cancelled():
            self._finished(None, CancelledError("the call was cancelled"))
        elif (error := task.exception()) is not None:
            self._finished(None, error)
        else:
            self._finished(task.result(), None)

    def _stop(self) -> None:
        if self._runner is not None:
            self._runner.cancel()

    def _finished(self, answer: Any, error: BaseException | None) -> None:
        if self._done:
            return
        if error is not None:
            self._end(error)
            return
        try:
            parts = self._method.serialize(answer)
        except Exception as failure:  # noqa: BLE001 (whatever it is, the caller gets a status)
            self._end(failure)
            return
        size = 0
        for part in parts:
            size += len(part)
        limit = self._connection.limits.message_bytes
        if size > limit:
            self._end(ResourceExhaustedError(f"the answer has {size} bytes; at most {limit} are sent"))
            return
        self._release()
        _send_answer(self._connection, self._stream, parts, size)
        self._connection.wake()


class _Runner:
    """Runs a coroutine that awaits nothing but futures, without the cost of a task: a third of a small request's."""

    __slots__ = ("_coroutine", "_finished", "_future")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], finished: Callable[[Any, BaseException | None], None]
    ) -> None:
        self._coroutine = coroutine
        self._finished = finished
        self._future: asyncio.Future[Any] | None = None

    def step(self, _: object = None) -> None:
        """Go on until the coroutine waits again, or ends."""
        try:
            future = self._coroutine.send(None)
        except StopIteration as stop:
            self._finished(stop.value, None)
        except BaseException as error:  # noqa: BLE001 (whatever it is, the caller gets a status)
            self._finished(None, error)
        else:
            future._asyncio_future_blocking = False
            future.add_done_callback(self.step)
            self._future = future

    def cancel(self) -> None:
        """Raise CancelledError where the coroutine waits; what it ends with is nobody's business."""
        self._finished = _nothing
        if self._future is not None:
            self._future.cancel()


def _nothing(_answer: object, _error: BaseException | None) -> None:
    return


def _send_answer(connection: Connection, stream: Stream, parts: Any, size: int) -> None:
    head = stream.head
    outbox = connection.outbox
    if head.encoding != "identity" and head.encoding in head.accepts and size >= MIN_COMPRESSED_BYTES:
        packed = compress(b"".join(parts), head.encoding)
        outbox.headers(stream, RESPONSE_BLOCKS[head.encoding])
        outbox.message(stream, (packed,), len(packed), compressed=True)
        outbox.trailers(stream, trailers_block(StatusCode.OK))
    else:
        outbox.answer(stream, parts, size)


def refuse(connection: Connection, stream: Stream, code: StatusCode, message: str, http_status: int = 200) -> None:
    """Answer a call that is not served; the rest of its request is not wanted."""
    connection.outbox.trailers(stream, error_block(code, message, http_status=http_status))
