"""What a connection has to send: frames in order, and payloads that wait for the peer's windows."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from erg_server.transports.grpc import frames
from erg_server.transports.grpc.frames import DATA, END_HEADERS, END_STREAM, HEADERS, ConnectionFault, ErrorCode
from erg_server.transports.grpc.header_blocks import STATUS_200, encode_headers
from erg_server.transports.grpc.stream import Stream

RESPONSE_HEADERS: Final = STATUS_200 + encode_headers((("content-type", "application/grpc"),))
OK_TRAILERS: Final = encode_headers((("grpc-status", "0"),))
CHUNK_BYTES: Final = 64 << 10
"""Most that one stream sends before the next one has its turn."""
QUEUE_BYTES: Final = 512 << 10
"""Most payload that leaves its stream's account before the socket has taken what left before it."""
MAX_SENT_FRAME_BYTES: Final = 1 << 20
"""Of a whole answer in one frame, whatever the peer takes: the others wait behind it."""

_pack_answer: Final = struct.Struct(f">HBBBI{len(RESPONSE_HEADERS)}sHBBBIBI").pack
_pack_message: Final = struct.Struct(">HBBBIBI").pack
_pack_ok: Final = struct.Struct(f">HBBBI{len(OK_TRAILERS)}s").pack

DEFAULT_TABLE_BYTES: Final = 4096
EMPTY_TABLE: Final = b"\x20"
"""A dynamic table size update to 0."""

Buffer = bytes | memoryview


class Outbox:
    """Owns the send windows. `frames` is what may go out now; `writable` is whether the socket takes it."""

    __slots__ = (
        "_ended",
        "_hold",
        "_table_update",
        "blocked",
        "frame_bytes",
        "frames",
        "initial_window",
        "pending_bytes",
        "queued_bytes",
        "queued_large",
        "sent_bytes",
        "whole_bytes",
        "window",
        "writable",
    )

    def __init__(self, ended: Callable[[Stream], None], hold: Callable[[int], object]) -> None:
        self.frames: list[Buffer] = []
        self.window = frames.DEFAULT_WINDOW
        self.initial_window = frames.DEFAULT_WINDOW
        self.frame_bytes = frames.DEFAULT_FRAME_BYTES
        self.writable = True
        self.pending_bytes = 0
        # Streams that may send by their own window, in turn. One whose window is closed is not here until it opens:
        # a peer that opens the connection's by bytes must not make the server look at all of them each time.
        self.blocked: dict[int, Stream] = {}
        # Whether `frames` may hold parts too large to be copied together.
        self.queued_large = False
        # Payload in `frames` that came from streams' pending parts, and all that ever did.
        self.queued_bytes = 0
        self.sent_bytes = 0
        # The largest answer that goes out in one piece: a frame, or none while a block must begin with `_table_update`.
        self.whole_bytes = self.frame_bytes
        self._table_update: bytes | None = b""
        self._ended = ended
        self._hold = hold

    def answer(self, stream: Stream, message: Sequence[Buffer], size: int, *, compressed: bool = False) -> None:
        """Send a whole OK answer: headers, one message of `size` bytes, trailers."""
        total = size + 5
        number = stream.number
        if (
            total <= self.window
            and total <= stream.send_left
            and total <= self.whole_bytes
            and self.writable
            and not self.blocked
        ):
            self.window -= total
            self.frames.append(
                _pack_answer(
                    0, len(RESPONSE_HEADERS), HEADERS, END_HEADERS, number, RESPONSE_HEADERS,
                    total >> 8, total & 0xFF, DATA, 0, number, compressed, size,
                )
            )  # fmt: skip
            self.frames += message
            if size > CHUNK_BYTES:
                self.queued_large = True
            self.frames.append(_pack_ok(0, len(OK_TRAILERS), HEADERS, END_HEADERS | END_STREAM, number, OK_TRAILERS))
            self._ended(stream)
            return
        self.headers(stream, RESPONSE_HEADERS)
        self.message(stream, message, size, compressed=compressed)
        self.trailers(stream, OK_TRAILERS)

    def headers(self, stream: Stream, block: bytes) -> None:
        """Send a header block that leaves the stream open."""
        self._block(stream.number, block, 0)

    def message(self, stream: Stream, message: Sequence[Buffer], size: int, *, compressed: bool = False) -> None:
        """Send one message of a stream, as far as the windows go now."""
        total = size + 5
        if (
            total <= frames.DEFAULT_FRAME_BYTES
            and total <= self.window
            and total <= stream.send_left
            and self.writable
            and self.queued_bytes < QUEUE_BYTES
            and not self.blocked
            and not stream.pending_bytes
        ):
            self.window -= total
            stream.send_left -= total
            stream.moved_bytes += total
            self.sent_bytes += total
            self.queued_bytes += total
            self.frames.append(_pack_message(total >> 8, total & 0xFF, DATA, 0, stream.number, compressed, size))
            self.frames += message
            return
        if stream.pending is None:
            stream.pending = deque()
        stream.pending.append(bytes((compressed,)) + size.to_bytes(4, "big"))
        stream.pending += message
        stream.pending_bytes += size + 5
        self.pending_bytes += size + 5
        self._hold(size + 5)
        if stream.send_left > 0:
            self.blocked[stream.number] = stream
            self.pump()

    def trailers(self, stream: Stream, block: bytes) -> None:
        """End a stream: after what it still has to send."""
        if stream.pending_bytes:
            stream.trailers = block
            return
        self._block(stream.number, block, END_STREAM)
        self._ended(stream)

    def take_frame_bytes(self, frame_bytes: int) -> None:
        """The peer stated the largest frame that it takes."""
        self.frame_bytes = min(frame_bytes, MAX_SENT_FRAME_BYTES)
        self.whole_bytes = 0 if self._table_update else self.frame_bytes

    def take_table_bytes(self, table_bytes: int) -> None:
        """The peer stated the dynamic table that it keeps.

        Ours stays empty, which the next block has to say if the peer's shrinks (RFC 7541, 4.2). Said once, it holds
        for every size.
        """
        if table_bytes < DEFAULT_TABLE_BYTES and self._table_update == b"":
            self._table_update = EMPTY_TABLE
            self.whole_bytes = 0

    def opened(self, stream: Stream | None, credit: int) -> None:
        """The peer's WINDOW_UPDATE for a stream, or for the connection (None).

        Raises:
            ConnectionFault: the connection's window passes its bound.
            OverflowError: the stream's does.
        """
        if stream is None:
            self.window += credit
            if self.window > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1")
        else:
            stream.send_left += credit
            if stream.send_left > frames.MAX_WINDOW:
                raise OverflowError
            if stream.pending_bytes and stream.send_left > 0:
                self.blocked[stream.number] = stream
        if self.blocked:
            self.pump()

    def resized(self, streams: Iterable[Stream], initial_window: int) -> None:
        """The peer changed the initial window, which shifts that of every open stream (RFC 9113, 6.9.2).

        Raises:
            ConnectionFault: a stream's window passes its bound.
        """
        shift = initial_window - self.initial_window
        self.initial_window = initial_window
        for stream in streams:
            stream.send_left += shift
            if stream.send_left > frames.MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is over 2^31-1")
            if stream.pending_bytes and stream.send_left > 0:
                self.blocked[stream.number] = stream

    def forget(self, stream: Stream) -> None:
        """Drop what a stream still had to send."""
        if stream.pending_bytes:
            self.blocked.pop(stream.number, None)
            self.pending_bytes -= stream.pending_bytes
            self._hold(-stream.pending_bytes)
            stream.pending_bytes = 0
            stream.pending = None
        stream.trailers = None
        if stream.drained is not None:
            _wake(stream)

    def pump(self) -> None:
        """Send what the windows allow, the streams taking turns."""
        blocked = self.blocked
        while blocked and self.writable and self.window > 0 and self.queued_bytes < QUEUE_BYTES:
            number = next(iter(blocked))
            stream = blocked.pop(number)
            if stream.send_left > 0:
                self._send_some(stream)
            if not stream.pending_bytes:
                if stream.trailers is not None:
                    self._block(number, stream.trailers, END_STREAM)
                    stream.trailers = None
                    self._ended(stream)
            elif stream.send_left > 0:
                blocked[number] = stream

    def _send_some(self, stream: Stream) -> None:
        """One DATA frame."""
        room = min(self.window, stream.send_left, self.frame_bytes, CHUNK_BYTES)
        size = min(room, stream.pending_bytes)
        self.frames.append(frames.header(size, DATA, 0, stream.number))
        self.queued_large = True
        left = size
        pending = stream.pending
        assert pending is not None
        while left:
            first = pending[0]
            if len(first) <= left:
                self.frames.append(pending.popleft())
                left -= len(first)
            else:
                view = memoryview(first)
                self.frames.append(view[:left])
                pending[0] = view[left:]
                left = 0
        while pending and not len(pending[0]):
            pending.popleft()
        self.window -= size
        stream.send_left -= size
        stream.pending_bytes -= size
        stream.moved_bytes += size
        self.pending_bytes -= size
        self.queued_bytes += size
        self.sent_bytes += size
        self._hold(-size)
        if stream.drained is not None:
            _wake(stream)

    def _block(self, number: int, block: bytes, flags: int) -> None:
        """HEADERS, and CONTINUATION where the block is longer than the peer takes in a frame."""
        most = self.frame_bytes
        if self._table_update:
            block = self._table_update + block
            self._table_update = None
            self.whole_bytes = most
        if len(block) <= most:
            self.frames.append(frames.header(len(block), HEADERS, flags | END_HEADERS, number) + block)
            return
        self.frames.append(frames.header(most, HEADERS, flags, number) + block[:most])
        for at in range(most, len(block), most):
            part = block[at : at + most]
            last = END_HEADERS if at + most >= len(block) else 0
            self.frames.append(frames.header(len(part), frames.CONTINUATION, last, number) + part)


def _wake(stream: Stream) -> None:
    waiter, stream.drained = stream.drained, None
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
