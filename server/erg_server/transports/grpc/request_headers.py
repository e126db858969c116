"""HEADERS and CONTINUATION of a connection: header blocks put together, and what they open or end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from erg_server.transports.grpc.call_head import CallHead
from erg_server.transports.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    PADDED,
    PRIORITY_FLAG,
    ConnectionFault,
    ErrorCode,
)
from erg_server.transports.grpc.header_blocks import HeaderCache, HeaderDecoder
from erg_server.transports.grpc.request_data import padding_bytes
from erg_server.transports.grpc.stream import Stream

if TYPE_CHECKING:
    from erg_server.transports.grpc.connection import Connection

_EMPTY: Final = memoryview(b"")


class RequestHeaders:
    """Owns the decoder of one connection, and a block that CONTINUATION goes on with."""

    __slots__ = ("_block", "_connection", "_count", "_decoder", "_flags", "began_ns", "number")

    def __init__(self, connection: Connection, cache: HeaderCache) -> None:
        self._connection = connection
        self._decoder = HeaderDecoder(cache, connection.limits.header_bytes)
        self._block = bytearray()
        self._flags = 0
        self._count = 0
        # The stream whose block is not whole, 0 for none; and since when.
        self.number = 0
        self.began_ns = 0

    def take_headers(self, flags: int, number: int, payload: memoryview) -> None:
        """HEADERS, without its padding."""
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self.take_block(number, flags, bytes(payload))
        else:
            self._check_size(len(payload))
            self.number, self._flags, self._count = number, flags, 0
            self._block += payload
            self.began_ns = self._connection.progress_ns

    def take_continuation(self, flags: int, payload: memoryview) -> None:
        """CONTINUATION of the stream whose block is not whole; bounded in frames and bytes (CVE-2024-27316)."""
        if not self.number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block")
        self._count += 1
        if self._count > self._connection.limits.continuation_frames:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        self._check_size(len(self._block) + len(payload))
        self._block += payload
        if flags & END_HEADERS:
            block = bytes(self._block)
            self._block.clear()
            number, self.number = self.number, 0
            self.take_block(number, self._flags, block)

    def _check_size(self, size: int) -> None:
        if size > self._connection.limits.header_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")

    def take_block(self, number: int, flags: int, block: bytes) -> None:
        """A whole header block, and the flags of its HEADERS."""
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is not a client's")
        self._check_size(len(block))
        # Decoded whatever becomes of the stream: the decoder's table is the connection's.
        head = self._decoder.decode(block)
        connection = self._connection
        numbers = connection.numbers
        if number > numbers.last:
            numbers.last = number
            if connection.draining:
                numbers.ignore(connection.limits.concurrent_streams)
            else:
                self._open(number, flags, head)
        elif (stream := connection.streams.get(number)) is not None:
            self._take_trailers(stream, flags, head)
        elif not numbers.was_reset_by_us(number):
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS for stream {number}, which has ended")

    def _open(self, number: int, flags: int, head: CallHead) -> None:
        connection = self._connection
        limits = connection.limits
        if (
            len(connection.streams) >= limits.concurrent_streams
            or connection.held_bytes > limits.connection_buffer_bytes
        ):
            connection.refuse(number, ErrorCode.REFUSED_STREAM)
            return
        if head.malformed:
            connection.refuse(number, ErrorCode.PROTOCOL_ERROR)
            return
        stream = Stream(
            number,
            head,
            receive_left=limits.stream_window_bytes,
            send_left=connection.outbox.initial_window,
            now_ns=connection.progress_ns,
        )
        connection.streams[number] = stream
        if flags & END_STREAM:
            stream.remote_closed = True
        stream.call = connection.start_call(connection, stream)
        if stream.remote_closed and stream.call is not None:
            stream.call.data(_EMPTY, end_stream=True)

    def _take_trailers(self, stream: Stream, flags: int, head: CallHead) -> None:
        if stream.remote_closed:
            self._connection.abort(stream, ErrorCode.STREAM_CLOSED)
        elif not flags & END_STREAM or not head.is_trailers:
            self._connection.abort(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.remote_closed = True
            assert stream.call is not None
            stream.call.data(_EMPTY, end_stream=True)


def unpadded(payload: memoryview, flags: int) -> memoryview:
    """The payload of HEADERS without its padding (RFC 9113, 6.2)."""
    if not flags & PADDED:
        return payload
    return payload[1 : len(payload) + 1 - padding_bytes(payload, 0, len(payload))]
