"""One HTTP/2 connection as a state machine over bytes (RFC 9113): frames in, calls and frames out, no socket."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from erg_server.transports.grpc import frames
from erg_server.transports.grpc.call_head import CallHead
from erg_server.transports.grpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    SETTINGS,
    ConnectionFault,
    ErrorCode,
    Setting,
)
from erg_server.transports.grpc.header_blocks import HeaderCache, HeaderDecoder
from erg_server.transports.grpc.limits import Budget, Limits
from erg_server.transports.grpc.outbox import Outbox
from erg_server.transports.grpc.stream import Call, Stream

REMEMBERED_RESETS = 256
_BLOCK_EXTRA_BYTES = 261
"""What HEADERS may hold beside its block: padding and priority."""


class BufferAccount:
    """Bytes that the connections of one server hold for calls that are not complete."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0


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
        self.outbox = Outbox(self._answered)
        self.closing = False
        self.draining = False
        self.fault: ConnectionFault | None = None
        self.opened_ns = self.progress_ns = now_ns()
        self.established = False
        self.ping_unanswered = False
        self.held_bytes = 0
        # Where frames were queued outside of `receive`, this asks for them to be sent.
        self.wake: Callable[[], None] = lambda: None
        self._now_ns = now_ns
        self._start_call = start_call
        self._account = account
        self._decoder = HeaderDecoder(cache, limits.header_bytes)
        # The beginning of a frame that has not come whole, and how long what begins there is at least.
        self._held = bytearray()
        self._needed = 0
        self._preface_left = frames.PREFACE
        self._last_stream = 0
        # A DATA frame whose payload has not come whole: its stream (None: one that is gone), bytes left, its flags.
        self._data: tuple[Stream | None, int, int] | None = None
        # A header block that CONTINUATION goes on with: stream, flags of its HEADERS, the block, frames so far.
        self._block: tuple[int, int, bytearray, int] | None = None
        self._receive_left = frames.DEFAULT_WINDOW
        self._credit = limits.connection_window_bytes - frames.DEFAULT_WINDOW
        self._reset_by_us: deque[int] = deque(maxlen=REMEMBERED_RESETS)
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
        self._return_credit()

    @property
    def half_read(self) -> bool:
        """Whether a frame or a header block has begun and not ended."""
        return bool(self._held) or self._data is not None or self._block is not None

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
        self.outbox.frames.append(frames.goaway(self._last_stream, fault.code, fault.reason))
        self.closing = True
        self.lost()

    def lost(self) -> None:
        """The connection is gone: nobody waits for any of its calls."""
        streams, self.streams = list(self.streams.values()), {}
        self.closing = True
        for stream in streams:
            self.outbox.forget(stream)
            if stream.call is not None:
                stream.call.cancelled()

    def drain(self) -> None:
        """Take no new calls and close when the open ones are answered."""
        if not self.draining and not self.closing:
            self.draining = True
            self.outbox.frames.append(frames.goaway(self._last_stream, ErrorCode.NO_ERROR, "draining"))
            self._close_when_done()

    def ping(self) -> None:
        """Ask whether the peer is there."""
        self.ping_unanswered = True
        self.outbox.frames.append(frames.ping(b"erg-ping", ack=False))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once, in both directions."""
        self.outbox.forget(stream)
        if self.streams.pop(stream.number, None) is not None:
            self._reset_by_us.append(stream.number)
            self.outbox.frames.append(frames.rst_stream(stream.number, code))
            self._close_when_done()

    def hold(self, nbytes: int) -> bool:
        """Count bytes that a call keeps (or, negative, kept); False where that is more than is allowed."""
        self.held_bytes += nbytes
        self._account.held_bytes += nbytes
        return (
            self.held_bytes <= self.limits.connection_buffer_bytes
            and self._account.held_bytes <= self.limits.total_buffer_bytes
        )

    def credit(self, nbytes: int) -> None:
        """Bytes were consumed: let the peer send as many again."""
        self._credit += nbytes
        if self._credit >= self.limits.connection_window_bytes >> 1:
            self._return_credit()

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

    def _return_credit(self) -> None:
        if self._credit > 0:
            self.outbox.frames.append(frames.window_update(0, self._credit))
            self._receive_left += self._credit
            self._credit = 0

    def _answered(self, stream: Stream) -> None:
        """The last frame of an answer is queued."""
        self._resets.earn()
        if self.streams.pop(stream.number, None) is not None and not stream.remote_closed:
            # The caller need not send the rest of what is answered already (RFC 9113, 8.1).
            self._reset_by_us.append(stream.number)
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
        if self._data is not None:
            view = self._go_on_with_data(view)
        if self._held:
            self._held += view
            if len(self._held) < self._needed:
                return  # Looking again at each byte of a frame that comes in bytes would cost the square of its size.
            view = memoryview(bytes(self._held))
            self._held.clear()
        at, end = 0, len(view)
        unpack, data, streams = frames.unpack_header, self._take_data, self.streams
        while end - at >= frames.HEADER_BYTES:
            high, low, kind, flags, number = unpack(view, at)
            size = high << 8 | low
            body = at + 9
            at = body + size
            if size > self.limits.frame_bytes:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes is over the maximum")
            number &= frames.MAX_STREAM
            if kind == DATA and not flags & PADDED:
                stream = self._check_data(streams, number, size)
                if at > end:
                    self._data = stream, size, flags
                    self._go_on_with_data(view[body:])
                    return
                data(stream, view[body:at], flags)
            elif at > end:
                if kind != DATA:
                    self._check_block_size(size - _BLOCK_EXTRA_BYTES)
                at = body - frames.HEADER_BYTES
                self._needed = frames.HEADER_BYTES + size
                self._held += view[at:]
                return
            else:
                self._take_frame(kind, flags, number, view[body:at])
            if self.closing:
                return
        if at < end:
            self._needed = frames.HEADER_BYTES
            self._held += view[at:]

    def _go_on_with_data(self, view: memoryview) -> memoryview:
        assert self._data is not None
        stream, left, flags = self._data
        part = view[:left]
        left -= len(part)
        if left:
            self._data = stream, left, flags
            if part:
                self._take_data(stream, part, 0)
        else:
            self._data = None
            self._take_data(stream, part, flags)
        return view[len(part) :]

    def _check_data(self, streams: dict[int, Stream], number: int, size: int) -> Stream | None:
        """Charge the windows for a DATA frame; None for a stream that is gone."""
        if self._block is not None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame came inside a header block")
        self._receive_left -= size
        if self._receive_left < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more bytes than the connection's window")
        stream = streams.get(number)
        if stream is None:
            self._check_known(number)
            self._spend_unless_reset(number)
            return None
        if stream.remote_closed:
            self._abort(stream, ErrorCode.STREAM_CLOSED)
            return None
        stream.receive_left -= size
        if stream.receive_left < 0:
            self._abort(stream, ErrorCode.FLOW_CONTROL_ERROR)
            return None
        return stream

    def _take_data(self, stream: Stream | None, payload: memoryview, flags: int) -> None:
        if stream is None or self.streams.get(stream.number) is not stream:
            self.credit(len(payload))
            return
        end_stream = bool(flags & END_STREAM)
        if end_stream:
            stream.remote_closed = True
        elif not payload:
            self._spend("empty DATA frames")
        assert stream.call is not None
        stream.call.data(payload, end_stream=end_stream)

    def _take_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        if self._block is not None and (kind != CONTINUATION or number != self._block[0]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame came inside a header block")
        if not self.established:
            if kind != SETTINGS or flags & ACK:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is SETTINGS")
            self.established = True
        if kind == HEADERS:
            self._take_headers(flags, number, _unpadded(payload, flags))
        elif kind == DATA:
            stream = self._check_data(self.streams, number, len(payload))
            inner = _unpadded(payload, flags)
            self.credit(len(payload) - len(inner))
            if stream is not None:
                # The caller's window for this stream shrank by the padding too, which no message gives back.
                self.credit_stream(stream, len(payload) - len(inner))
            self._take_data(stream, inner, flags)
        elif kind == CONTINUATION:
            self._take_continuation(flags, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client does not push")
        elif kind in _CONTROL:
            _CONTROL[kind](self, flags, number, payload)
        else:
            # Unknown types are ignored (RFC 9113, 4.1), but not without end.
            self._spend("frames of unknown type")

    def _take_headers(self, flags: int, number: int, payload: memoryview) -> None:
        if flags & PRIORITY_FLAG:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            if int.from_bytes(payload[:4], "big") & frames.MAX_STREAM == number:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
            payload = payload[5:]
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} is not a client's")
        if flags & END_HEADERS:
            self._take_block(number, flags, bytes(payload))
        else:
            self._block = number, flags, bytearray(payload), 0
            self._check_block_size(len(payload))

    def _take_continuation(self, flags: int, payload: memoryview) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a header block")
        number, first_flags, block, count = self._block
        block += payload
        self._check_block_size(len(block))
        if count >= self.limits.continuation_frames:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")
        self._block = number, first_flags, block, count + 1
        if flags & END_HEADERS:
            self._block = None
            self._take_block(number, first_flags, bytes(block))

    def _check_block_size(self, size: int) -> None:
        if size > self.limits.header_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")

    def _take_block(self, number: int, flags: int, block: bytes) -> None:
        self._check_block_size(len(block))
        # Decoded whatever becomes of the stream: the decoder's table is the connection's.
        head = self._decoder.decode(block)
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, flags)
        elif number <= self._last_stream:
            if number not in self._reset_by_us:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"HEADERS for stream {number}, which has ended")
        else:
            self._last_stream = number
            self._open(number, flags, head)

    def _take_trailers(self, stream: Stream, flags: int) -> None:
        if stream.remote_closed:
            self._abort(stream, ErrorCode.STREAM_CLOSED)
        elif not flags & END_STREAM:
            self._abort(stream, ErrorCode.PROTOCOL_ERROR)
        else:
            stream.remote_closed = True
            assert stream.call is not None
            stream.call.data(memoryview(b""), end_stream=True)

    def _open(self, number: int, flags: int, head: CallHead) -> None:
        if self.draining:
            # The GOAWAY said that streams after its number are not looked at; the caller sends them elsewhere.
            self._reset_by_us.append(number)
            return
        outbox = self.outbox
        if (
            len(self.streams) >= self.limits.concurrent_streams
            or outbox.pending_bytes > self.limits.connection_buffer_bytes
        ):
            self._refuse(number, ErrorCode.REFUSED_STREAM)
            return
        if head.malformed:
            self._refuse(number, ErrorCode.PROTOCOL_ERROR)
            return
        stream = Stream(
            number,
            head,
            receive_left=self.limits.stream_window_bytes,
            send_left=outbox.initial_window,
            now_ns=self.progress_ns,
        )
        self.streams[number] = stream
        if flags & END_STREAM:
            stream.remote_closed = True
        stream.call = self._start_call(self, stream)
        if stream.remote_closed and stream.call is not None:
            stream.call.data(memoryview(b""), end_stream=True)

    def _refuse(self, number: int, code: ErrorCode) -> None:
        self._spend("refused streams")
        self._reset_by_us.append(number)
        self.outbox.frames.append(frames.rst_stream(number, code))

    def _abort(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream because of what its caller did."""
        call = stream.call
        self.reset(stream, code)
        self._spend("stream errors")
        if call is not None:
            call.cancelled()

    def _check_known(self, number: int) -> None:
        if number == 0 or number > self._last_stream or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {number} has not been opened")

    def _spend_unless_reset(self, number: int) -> None:
        if number not in self._reset_by_us:
            self._spend("frames for streams that have ended")

    def _spend(self, what: str) -> None:
        if not self._control.spend(self.progress_ns):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")

    def _take_priority(self, _flags: int, number: int, payload: memoryview) -> None:
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY is for a stream")
        self._spend("PRIORITY frames")
        if len(payload) != 5 and (stream := self.streams.get(number)) is not None:
            self._abort(stream, ErrorCode.FRAME_SIZE_ERROR)

    def _take_reset(self, _flags: int, number: int, payload: memoryview) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        self._check_known(number)
        if not self._resets.spend(self.progress_ns):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many resets")
        stream = self.streams.pop(number, None)
        if stream is not None:
            self.outbox.forget(stream)
            if stream.call is not None:
                stream.call.cancelled()
            self._close_when_done()

    def _take_settings(self, flags: int, number: int, payload: memoryview) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS is for the connection")
        if flags & ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS acknowledgement is empty")
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has six bytes a parameter")
        self._spend("SETTINGS frames")
        for key, value in frames.parse_settings(bytes(payload)):
            if key == Setting.INITIAL_WINDOW_SIZE:
                if value > frames.MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the initial window is over 2^31-1")
                self.outbox.resized(list(self.streams.values()), value)
            elif key == Setting.MAX_FRAME_SIZE:
                if not frames.DEFAULT_FRAME_BYTES <= value <= frames.MAX_FRAME_BYTES:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a maximum frame of {value} bytes")
                self.outbox.frame_bytes = value
            elif key == Setting.ENABLE_PUSH and value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        self.outbox.frames.append(frames.SETTINGS_ACK)

    def _take_ping(self, flags: int, number: int, payload: memoryview) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING is for the connection")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        if flags & ACK:
            self.ping_unanswered = False
            return
        self._spend("PING frames")
        self.outbox.frames.append(frames.ping(bytes(payload), ack=True))

    def _take_goaway(self, _flags: int, number: int, payload: memoryview) -> None:
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY is for the connection")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has eight bytes at least")
        # The peer opens no more streams; what is open is answered.
        self.draining = True
        self._close_when_done()

    def _take_window_update(self, _flags: int, number: int, payload: memoryview) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        credit = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        stream = self.streams.get(number) if number else None
        if number and stream is None:
            self._check_known(number)
            return
        if credit == 0:
            if stream is None:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
            self._abort(stream, ErrorCode.PROTOCOL_ERROR)
            return
        try:
            self.outbox.opened(stream, credit)
        except OverflowError:
            assert stream is not None
            self._abort(stream, ErrorCode.FLOW_CONTROL_ERROR)


_CONTROL: dict[int, Callable[[Connection, int, int, memoryview], None]] = {
    PRIORITY: Connection._take_priority,
    frames.RST_STREAM: Connection._take_reset,
    SETTINGS: Connection._take_settings,
    frames.PING: Connection._take_ping,
    frames.GOAWAY: Connection._take_goaway,
    frames.WINDOW_UPDATE: Connection._take_window_update,
}


def _unpadded(payload: memoryview, flags: int) -> memoryview:
    """The payload of DATA or HEADERS without its padding (RFC 9113, 6.1)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]
