"""One HTTP/2 connection as a state machine over bytes (RFC 9113): frames in, calls and frames out, no socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from erg_server.transports.grpc import frames
from erg_server.transports.grpc.control_frames import CONTROL, FIRST_PING, FIXED_SIZE
from erg_server.transports.grpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PADDED,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    SETTINGS,
    ConnectionFault,
    ErrorCode,
    Setting,
)
from erg_server.transports.grpc.header_blocks import HeaderCache
from erg_server.transports.grpc.limits import Budget, BufferAccount, Limits
from erg_server.transports.grpc.outbox import Outbox
from erg_server.transports.grpc.request_data import RequestData, padding_bytes
from erg_server.transports.grpc.request_headers import RequestHeaders, unpadded
from erg_server.transports.grpc.stream import Call, Stream
from erg_server.transports.grpc.stream_numbers import StreamNumbers

_BLOCK_FLAGS: Final = END_HEADERS | PADDED | PRIORITY_FLAG
_BLOCK_EXTRA_BYTES: Final = 261
"""What HEADERS may hold beside its block: padding and priority."""


class Connection:
    """Owns the streams and both windows of one connection.

    `start_call` is asked for each new stream and returns what the stream's bytes go to, or None if it has already
    answered. Feed bytes to `receive`, send `outbox.frames`, and close when `closing` is set and they are sent.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        cache: HeaderCache,
        account: BufferAccount,
        now_ns: Callable[[], int],
        start_call: Callable[[Connection, Stream], Call | None],
    ) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.numbers = StreamNumbers()
        self.outbox = Outbox(self._answered, self.hold)
        self.closing = False
        # Told that it goes, and told with which stream it ends.
        self.retiring = False
        self.retired_ns = 0
        self.draining = False
        self.fault: ConnectionFault | None = None
        self.opened_ns = self.progress_ns = now_ns()
        self.established = False
        self.held_bytes = 0
        self.start_call = start_call
        # Where frames were queued outside of `receive`, this asks for them to be sent.
        self.wake: Callable[[], None] = lambda: None
        self._now_ns = now_ns
        self._account = account
        self._headers = RequestHeaders(self, cache)
        self._data = RequestData(self)
        self.credit = self._data.credit
        self._most_bytes = limits.frame_bytes
        self._most_other_bytes = limits.header_bytes + _BLOCK_EXTRA_BYTES
        # The beginning of a frame that has not come whole, how long what begins there is at least, and since when.
        self._held = bytearray()
        self._needed = 0
        self._held_ns = 0
        self._preface_left = frames.PREFACE
        self._control = Budget(limits.control_frames, limits.control_frames_per_s, self.opened_ns)
        self._resets = Budget(limits.resets, limits.resets_per_s, self.opened_ns)
        self.outbox.frames.append(
            frames.settings(
                (
                    (Setting.MAX_CONCURRENT_STREAMS, limits.concurrent_streams),
                    (Setting.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                    (Setting.MAX_FRAME_SIZE, limits.frame_bytes),
                    (Setting.MAX_HEADER_LIST_SIZE, limits.header_bytes),
                )
            )
        )
        self._data.return_credit()

    @property
    def half_read_ns(self) -> int | None:
        """Since when a frame other than DATA, or a header block, has begun and not ended."""
        if self._headers.number:
            return self._headers.began_ns
        return self._held_ns if self._held else None

    @property
    def idle(self) -> bool:
        """Whether nothing is going on."""
        return not (self.streams or self._held or self._headers.number or self._data.partial)

    def receive(self, view: memoryview) -> None:
        """Take what came; never raises for anything a peer may send. `view` is valid during this call only."""
        if self.closing:
            return
        self.progress_ns = self._now_ns()
        try:
            if self._preface_left:
                view = self._take_preface(view)
            self._receive(view)
        except ConnectionFault as fault:
            self.fail(fault)

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection with GOAWAY; its calls are cancelled."""
        self.fault = fault
        self.outbox.frames.append(frames.goaway(self.numbers.answered, fault.code, fault.reason))
        self.lost()

    def lost(self) -> None:
        """The connection is gone: nobody waits for any of its calls."""
        self.closing = True
        streams, self.streams = list(self.streams.values()), {}
        for stream in streams:
            self.outbox.forget(stream)
            call, stream.call = stream.call, None
            if call is not None:
                call.cancelled()

    def retire(self) -> None:
        """Ask the peer to open no more streams; `drain` follows once it knows, so that none is lost under way."""
        if not self.retiring and not self.draining and not self.closing:
            self.retiring = True
            self.retired_ns = self._now_ns()
            self.outbox.frames.append(frames.goaway(frames.MAX_STREAM, ErrorCode.NO_ERROR, "retiring"))
            self.outbox.frames.append(frames.ping(FIRST_PING, ack=False))

    def drain(self) -> None:
        """Take no new calls and close when the open ones are answered."""
        if not self.draining and not self.closing:
            self.draining = True
            self.outbox.frames.append(frames.goaway(self.numbers.promise(), ErrorCode.NO_ERROR, "draining"))
            self._close_when_done()

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self.outbox.frames.append(frames.ping(b"erg-ping", ack=False))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once, in both directions; its call is told."""
        if self.streams.get(stream.number) is stream:
            self.numbers.reset_by_us(stream.number)
            self.outbox.frames.append(frames.rst_stream(stream.number, code))
            self.remove(stream)

    def abort(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream because of what its caller did."""
        self.reset(stream, code)
        self.spend("stream errors")

    def refuse(self, number: int, code: ErrorCode) -> None:
        """End a stream that was never opened."""
        self.numbers.reset_by_us(number)
        self.outbox.frames.append(frames.rst_stream(number, code))
        self.spend("refused streams")

    def remove(self, stream: Stream) -> None:
        """Forget a stream; its call is told that nobody waits for it."""
        self.outbox.forget(stream)
        del self.streams[stream.number]
        call, stream.call = stream.call, None
        if call is not None:
            call.cancelled()
        self._close_when_done()

    def hold(self, nbytes: int) -> bool:
        """Count bytes that a call keeps (or, negative, kept); False where that is more than is allowed."""
        self.held_bytes += nbytes
        self._account.held_bytes += nbytes
        return (
            self.held_bytes <= self.limits.connection_buffer_bytes
            and self._account.held_bytes <= self.limits.total_buffer_bytes
        )

    def spend(self, what: str) -> None:
        """The peer did what costs the server and earns it nothing; raises ConnectionFault for too much of it."""
        if not self._control.spend(self.progress_ns):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")

    def spend_reset(self) -> None:
        """The peer reset a stream; raises ConnectionFault for too many without as many answers."""
        if not self._resets.spend(self.progress_ns):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many resets")

    def top_up(self, stream: Stream) -> None:
        """Open a stream's window again, once half of it is used."""
        short = self.limits.stream_window_bytes - stream.receive_left
        if short >= self.limits.stream_window_bytes >> 1:
            self.credit_stream(stream, short)

    def credit_stream(self, stream: Stream, nbytes: int) -> None:
        """Let the peer send more on one stream."""
        if nbytes > 0 and not stream.remote_closed and stream.number in self.streams:
            stream.receive_left += nbytes
            self.outbox.frames.append(frames.window_update(stream.number, nbytes))

    def _answered(self, stream: Stream) -> None:
        """The last frame of an answer is queued."""
        self._resets.earn()
        # The call holds the stream; each would otherwise be a cycle that waits for the garbage collector.
        stream.call = None
        if self.streams.pop(stream.number, None) is not None and not stream.remote_closed:
            # The caller need not send the rest of what is answered already (RFC 9113, 8.1).
            self.numbers.reset_by_us(stream.number)
            self.outbox.frames.append(frames.rst_stream(stream.number, ErrorCode.NO_ERROR))
        if self.draining:
            self._close_when_done()

    def _close_when_done(self) -> None:
        if self.draining and not self.streams:
            self.closing = True

    def _take_preface(self, view: memoryview) -> memoryview:
        wanted = self._preface_left
        came = bytes(view[: len(wanted)])
        if not wanted.startswith(came):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the connection preface is not HTTP/2's")
        self._preface_left = wanted[len(came) :]
        return view[len(came) :]

    def _receive(self, view: memoryview) -> None:
        if self._data.partial is not None:
            view = self._data.go_on(view)
        if self._held:
            self._held += view
            if len(self._held) < self._needed:
                return  # Looking again at each byte of a frame that comes in bytes would cost the square of its size.
            view = memoryview(bytes(self._held))
            self._held.clear()
        at, end = 0, len(view)
        unpack, check, take = frames.unpack_header, self._data.check, self._data.take
        take_block = self._headers.take_block
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, number = unpack(view, at)
            size = high << 8 | low
            body = at + 9
            at = body + size
            number &= frames.MAX_STREAM
            if kind == DATA:
                if at > end or flags & PADDED or size > self._most_bytes or self._headers.number:
                    view = self._take_odd_data(view[body - 9 :], size, flags, number)
                    at, end = 0, len(view)
                else:
                    take(check(number, size), view[body:at], flags)
            elif kind == HEADERS and flags & _BLOCK_FLAGS == END_HEADERS and at <= end and self._opens(size):
                take_block(number, flags, bytes(view[body:at]))
            elif at > end or size > self._most_other_bytes:
                self._hold_other(view[body - 9 :], kind, size)
                return
            else:
                self._take_frame(kind, flags, number, view[body:at])
            if self.closing:
                return
        if at < end:
            self._hold_frame(view[at:], frames.HEADER_BYTES)

    def _opens(self, size: int) -> bool:
        """Whether a HEADERS frame of this size may come now."""
        return self.established and not self._headers.number and size <= self._most_other_bytes

    def _take_odd_data(self, frame: memoryview, size: int, flags: int, number: int) -> memoryview:
        """A DATA frame that is padded or has not come whole; returns what comes after it."""
        if size > self._most_bytes:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes is over the maximum")
        if self._headers.number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame came inside a header block")
        body = frames.HEADER_BYTES
        padding = 0
        if flags & PADDED:
            if len(frame) == body and size:
                self._hold_frame(frame, body + 1)
                return frame[body:]
            padding = padding_bytes(frame, body, size)
        self._data.begin(self._data.check(number, size), size, flags, padding)
        return self._data.go_on(frame[body + 1 :] if padding else frame[body:])

    def _hold_other(self, frame: memoryview, kind: int, size: int) -> None:
        if size > self._most_other_bytes:
            # Larger than its type needs; whoever sends it wants it buffered.
            fixed = size > self._most_bytes or kind in FIXED_SIZE
            code = ErrorCode.FRAME_SIZE_ERROR if fixed else ErrorCode.ENHANCE_YOUR_CALM
            raise ConnectionFault(code, f"a frame of type {kind} has {size} bytes")
        self._hold_frame(frame, frames.HEADER_BYTES + size)

    def _hold_frame(self, part: memoryview, needed: int) -> None:
        self._needed = needed
        self._held_ns = self.progress_ns
        self._held += part

    def _take_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        headers = self._headers
        if headers.number and (kind != CONTINUATION or number != headers.number):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame came inside a header block")
        if not self.established:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is SETTINGS")
            self.established = True
        if kind == HEADERS:
            headers.take_headers(flags, number, unpadded(payload, flags))
        elif kind == CONTINUATION:
            headers.take_continuation(flags, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client does not push")
        elif kind in CONTROL:
            CONTROL[kind](self, flags, number, payload)
        else:
            # Unknown types are ignored (RFC 9113, 4.1), but not without end.
            self.spend("frames of unknown type")
