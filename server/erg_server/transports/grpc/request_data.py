"""DATA of a connection: both windows that its peer sends in, and payloads that come in parts or padded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from erg_server.transports.grpc import frames
from erg_server.transports.grpc.frames import END_STREAM, ConnectionFault, ErrorCode
from erg_server.transports.grpc.stream import Stream

if TYPE_CHECKING:
    from erg_server.transports.grpc.connection import Connection


class RequestData:
    """Owns the connection's receive window, and a frame that has not come whole: its payload is never gathered."""

    __slots__ = ("_connection", "_credit", "_left", "partial")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left = frames.DEFAULT_WINDOW
        self._credit = connection.limits.connection_window_bytes - frames.DEFAULT_WINDOW
        # Of a frame that has not come whole: its stream (None: one that is gone, or padding), bytes left, its flags,
        # and how much padding follows.
        self.partial: tuple[Stream | None, int, int, int] | None = None

    def credit(self, nbytes: int) -> None:
        """Bytes were consumed: let the peer send as many again."""
        self._credit += nbytes
        if self._credit >= self._connection.limits.connection_window_bytes >> 1:
            self.return_credit()

    def return_credit(self) -> None:
        """Open the connection's window as far as it goes."""
        if self._credit > 0:
            self._connection.outbox.frames.append(frames.window_update(0, self._credit))
            self._left += self._credit
            self._credit = 0

    def check(self, number: int, size: int) -> Stream | None:
        """Charge the windows for a frame; None for a stream that is gone.

        Raises:
            ConnectionFault: the connection's window is passed, or the stream was never opened.
        """
        connection = self._connection
        self._left -= size
        if self._left < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more bytes than the connection's window")
        stream = connection.streams.get(number)
        if stream is None:
            connection.numbers.check_known(number)
            if not connection.numbers.was_reset_by_us(number):
                connection.refuse(number, ErrorCode.STREAM_CLOSED)
            return None
        if stream.remote_closed:
            connection.abort(stream, ErrorCode.STREAM_CLOSED)
            return None
        stream.receive_left -= size
        if stream.receive_left < 0:
            connection.abort(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return None
        return stream

    def take(self, stream: Stream | None, payload: memoryview, flags: int) -> None:
        """Hand a payload, or a part of one, to its call."""
        end_stream = bool(flags & END_STREAM)
        if not payload and not end_stream:
            self._connection.spend("empty DATA frames")
        if stream is None or self._connection.streams.get(stream.number) is not stream:
            self.credit(len(payload))
            return
        if end_stream:
            stream.remote_closed = True
        assert stream.call is not None
        stream.call.data(payload, end_stream=end_stream)

    def begin(self, stream: Stream | None, size: int, flags: int, padding: int) -> None:
        """A frame that is padded or not whole; `padding` counts the byte of its length too, which has come."""
        if padding:
            self.credit(1)
            if stream is not None:
                # The caller's window for this stream shrank by the padding too, which no message gives back.
                self._connection.credit_stream(stream, padding)
        self.partial = stream, size - padding, flags, padding - 1 if padding else 0

    def go_on(self, view: memoryview) -> memoryview:
        """Take what belongs to the frame that has begun; returns what comes after it."""
        while self.partial is not None:
            stream, left, flags, padding = self.partial
            part = view[:left]
            view = view[len(part) :]
            left -= len(part)
            if left:
                self.partial = stream, left, flags, padding
                if part:
                    self.take(stream, part, 0)
                break
            self.partial = (None, padding, END_STREAM, 0) if padding else None
            self.take(stream, part, flags)
        return view


def padding_bytes(view: memoryview, body: int, size: int) -> int:
    """Bytes of a padded frame that are not data: its padding and the byte of its length (RFC 9113, 6.1)."""
    if not size or view[body] >= size:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame")
    return view[body] + 1
