"""A gRPC call over a stream: what unary and streaming ones share."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from erg_server.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    StatusCode,
)
from erg_server.transports.base import CallContext, Method
from erg_server.transports.grpc.call_head import ENCODINGS, CallHead
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.messages import MessageReader
from erg_server.transports.grpc.status import error_block, status_of
from erg_server.transports.grpc.stream import Stream

log = logging.getLogger(__name__)

_ACCEPTED_ENCODINGS: Final = (("grpc-accept-encoding", ",".join(ENCODINGS)),)


class GrpcCall(abc.ABC):
    """What both kinds share: reading messages, the deadline, ending with a status."""

    __slots__ = (
        "_connection",
        "_context",
        "_done",
        "_held",
        "_kept_bytes",
        "_loop",
        "_method",
        "_reader",
        "_stream",
        "_timer",
    )

    def __init__(
        self, connection: Connection, stream: Stream, method: Method, loop: asyncio.AbstractEventLoop, now_ns: int
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._method = method
        self._loop = loop
        self._reader: MessageReader | None = None
        # Bytes counted for this call, and those of them that are whole messages.
        self._held = 0
        self._kept_bytes = 0
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
        connection, stream = self._connection, self._stream
        reader = self._reader
        if reader is None:
            reader = self._reader = MessageReader(stream.head.encoding, connection.limits.message_bytes)
        connection.credit(len(payload))
        messages = reader.feed(payload)
        # A message that came whole is progress, however small it is.
        stream.moved_bytes += len(payload) + len(messages) * connection.limits.stall_bytes
        self._hold_to(reader.held_bytes + self._kept_bytes)
        connection.credit_stream(stream, reader.wanted_bytes - stream.receive_left)
        return messages

    def _keep(self, nbytes: int) -> None:
        """Count a message that waits for its handler (or, negative, waited)."""
        self._kept_bytes += nbytes
        self._hold_to(self._held + nbytes)

    def _hold_to(self, nbytes: int) -> None:
        """Hold so many bytes in all; raises ResourceExhaustedError where that is too much."""
        more = nbytes - self._held
        if more:
            self._held = nbytes
            if not self._connection.hold(more) and more > 0:
                raise ResourceExhaustedError("the server holds too many bytes of requests and answers; try again later")

    def _release(self) -> None:
        self._done = True
        if self._held:
            self._hold_to(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _parse(self, raw: Any) -> Message:
        try:
            message: Message = self._method.parse(raw)
        except DecodeError:
            name = self._method.request.DESCRIPTOR.full_name
            raise InvalidArgumentError(f"the message is not a valid {name}") from None
        return message

    def _expired(self) -> None:
        self._timer = None
        # Answered first: what is stopped may say that it was cancelled, which is not why the call ends.
        self._end(DeadlineExceededError("the call's deadline has passed"))
        self._stop()

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
            status = StatusCode.INTERNAL, "internal error; the server's log has the cause", ()
        self._send_error(*status)
        self._connection.wake()

    def _send_error(self, code: StatusCode, message: str, trailers: Iterable[tuple[str, str]]) -> None:
        self._connection.outbox.trailers(self._stream, error_block(code, message, trailers))


def encoding_of(head: CallHead) -> str:
    """How a call's answers may be compressed: as its requests are, where the caller takes that."""
    return head.encoding if head.encoding in head.accepts else "identity"


def refuse(connection: Connection, stream: Stream, code: StatusCode, message: str, http_status: int = 200) -> None:
    """Answer a call that is not served; the rest of its request is not wanted."""
    # gRPC's rules of compression have a caller whose encoding is not taken told which ones are.
    accepts = () if stream.head.encoding in ENCODINGS else _ACCEPTED_ENCODINGS
    connection.outbox.trailers(stream, error_block(code, message, accepts, http_status=http_status))
