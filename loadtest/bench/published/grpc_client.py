"""Unary gRPC for a load: prepared messages over HTTP/2 (RFC 9113), for figures that the client has no part in.

grpcio's asyncio client takes longer for a call than the servers under test, whose rates would then be its own. This one
does what a load needs and no more: it multiplexes over few connections, keeps to the server's flow control, answers
its pings, and reads of an answer only how it ended, unless the bytes are asked for.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Awaitable
from types import TracebackType
from typing import Final, Self, cast

from erg_loadtest.dispatch import Send
from erg_loadtest.errors import ServerError
from erg_loadtest.samples import OK, STATUS_NAMES
from hpack import Decoder, Encoder, HPACKError

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 4, 5
_LARGEST_WINDOW: Final = (1 << 31) - 1
_FIRST_WINDOW: Final = 65_535
_TABLE_BYTES: Final = 4096
_RENEW_AT: Final = 1 << 30
_BLOCKS_KEPT: Final = 1024
_UNAVAILABLE: Final = STATUS_NAMES.index("UNAVAILABLE")


class Call:
    """One request under way."""

    __slots__ = ("answer", "done", "rest", "status", "told", "window")

    def __init__(self, message: bytes, done: asyncio.Future[int], window: int, *, keep: bool) -> None:
        self.rest = memoryview(message)
        self.done = done
        self.window = window
        self.status = _UNAVAILABLE
        self.told = ""
        self.answer = bytearray() if keep else None


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """One frame as it goes over the wire."""
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


class Connection(asyncio.Protocol):
    """One HTTP/2 connection; owned by the event loop's thread."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        encoder = Encoder()
        # The second time every field is in the table that the first one filled, and from then on the block is the same.
        self._first_block, self._block = encoder.encode(headers), encoder.encode(headers)
        self._decoder = Decoder()
        # Nothing that an answer's headers say may depend on earlier ones, so that each block is decoded but once.
        self._decoder.header_table_size = 0
        self._ends: dict[bytes, tuple[int | None, str]] = {}
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._fragments = bytearray()
        self._ends_stream = False
        self._calls: dict[int, Call] = {}
        self._blocked: deque[int] = deque()
        self._next_stream = 1
        self._window = _FIRST_WINDOW
        self._stream_window = _FIRST_WINDOW
        self._max_frame = 16_384
        self._unacknowledged = 0
        self._out: list[bytes] = []
        self._lost = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say first what the server may send: no pushes, no header table, and as much as it likes."""
        # uvloop's are not of this class, though they do all that it does.
        self._transport = cast("asyncio.Transport", transport)
        settings = ((_HEADER_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW_SIZE, _LARGEST_WINDOW))
        payload = b"".join(struct.pack(">HI", *setting) for setting in settings)
        grant = struct.pack(">I", _LARGEST_WINDOW - _FIRST_WINDOW)
        self._transport.write(_PREFACE + frame(_SETTINGS, 0, 0, payload) + frame(_WINDOW_UPDATE, 0, 0, grant))

    def start(self, message: bytes, *, keep: bool = False) -> Call:
        """Send a length-prefixed message; `keep` keeps the answer's bytes."""
        call = Call(message, self._loop.create_future(), self._stream_window, keep=keep)
        if self._lost:
            call.done.set_result(_UNAVAILABLE)
            call.told = self._lost
            return call
        stream = self._next_stream
        self._next_stream += 2
        self._calls[stream] = call
        self._write(frame(_HEADERS, _END_HEADERS, stream, self._first_block if stream == 1 else self._block))
        if self._blocked or not self._send(stream, call):
            self._blocked.append(stream)
        return call

    def close(self) -> None:
        """At once."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_closed(self) -> None:
        """Return once the socket is gone."""
        await self._closed

    def data_received(self, data: bytes) -> None:
        """Take every whole frame."""
        received = self._received
        received += data
        at, end = 0, len(received)
        try:
            while end - at >= 9:
                high, low, kind, flags, stream = struct.unpack_from(">HBBBI", received, at)
                size = (high << 8) | low
                if end - at - 9 < size:
                    break
                self._take(kind, flags, stream & _LARGEST_WINDOW, bytes(received[at + 9 : at + 9 + size]))
                at += 9 + size
        except (HPACKError, struct.error, IndexError, ValueError) as error:
            self._end(f"the server sent what this client cannot read: {error}")
            self.close()
        del received[:at]

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing under way will be answered any more."""
        self._end(f"the connection ended: {exc or 'without a word'}")
        if not self._closed.done():
            self._closed.set_result(None)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._renew(len(payload))
            call = self._calls.get(stream)
            if call is not None and call.answer is not None:
                call.answer += _unpadded(flags, payload)
            if flags & _END_STREAM:
                self._finish(stream)
        elif kind in (_HEADERS, _CONTINUATION):
            self._take_headers(kind, flags, stream, payload)
        elif kind == _RST_STREAM:
            if stream in self._calls:
                self._calls[stream].told = f"stream reset with code {int.from_bytes(payload, 'big')}"
            self._finish(stream)
        elif kind == _WINDOW_UPDATE:
            self._take_window(stream, int.from_bytes(payload, "big"))
        elif kind == _GOAWAY:
            self._lost = f"the server goes away: {payload[8:].decode(errors='replace')}"
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._write(frame(_PING, _ACK, 0, payload))

    def _take_window(self, stream: int, more: int) -> None:
        if stream == 0:
            self._window += more
        elif stream in self._calls:
            self._calls[stream].window += more
        self._pump()

    def _take_headers(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            payload = _unpadded(flags, payload)
            self._fragments = bytearray(payload[5:] if flags & _PRIORITY else payload)
            self._ends_stream = bool(flags & _END_STREAM)
        else:
            self._fragments += payload
        if not flags & _END_HEADERS:
            return
        status, told = self._end_of(bytes(self._fragments))
        call = self._calls.get(stream)
        if call is not None and status is not None:
            call.status, call.told = status, told
        if self._ends_stream:
            self._finish(stream)

    def _end_of(self, block: bytes) -> tuple[int | None, str]:
        """The status that a block of headers has, if any, and the server's words."""
        known = self._ends.get(block)
        if known is None:
            headers = {bytes(name): bytes(value) for name, value in self._decoder.decode(block, raw=True)}
            status = headers.get(b"grpc-status")
            known = None if status is None else int(status), headers.get(b"grpc-message", b"").decode(errors="replace")
            if len(self._ends) < _BLOCKS_KEPT:
                self._ends[block] = known
        return known

    def _take_settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                change, self._stream_window = value - self._stream_window, value
                for call in self._calls.values():
                    call.window += change
            elif name == _MAX_FRAME_SIZE:
                self._max_frame = value
            elif name == _HEADER_TABLE_SIZE and value < _TABLE_BYTES:
                raise ValueError(f"a header table of {value} bytes, of which it takes {_TABLE_BYTES}")
        self._write(frame(_SETTINGS, _ACK, 0))
        self._pump()

    def _send(self, stream: int, call: Call) -> bool:
        """Send as much of a message as both windows allow; whether that was all."""
        rest = call.rest
        while True:
            count = min(len(rest), self._max_frame, call.window, self._window)
            if count <= 0 and len(rest):
                call.rest = rest
                return False
            last = count == len(rest)
            self._write(frame(_DATA, _END_STREAM if last else 0, stream, rest[:count]))
            call.window -= count
            self._window -= count
            if last:
                call.rest = rest[:0]
                return True
            rest = rest[count:]

    def _pump(self) -> None:
        for _ in range(len(self._blocked)):
            stream = self._blocked.popleft()
            call = self._calls.get(stream)
            if call is not None and not self._send(stream, call):
                self._blocked.append(stream)

    def _renew(self, count: int) -> None:
        self._unacknowledged += count
        if self._unacknowledged >= _RENEW_AT:
            self._write(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unacknowledged)))
            self._unacknowledged = 0

    def _finish(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None and not call.done.done():
            call.done.set_result(call.status)

    def _end(self, why: str) -> None:
        self._lost = self._lost or why
        for stream in tuple(self._calls):
            self._calls[stream].told = self._lost
            self._calls[stream].status = _UNAVAILABLE
            self._finish(stream)

    def _write(self, data: bytes) -> None:
        # What one pass of the event loop has to say goes out in one write.
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        data, self._out = b"".join(self._out), []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


class LoadClient:
    """A few connections to one server, used in turn. An async context manager."""

    def __init__(
        self, host: str, port: int, *, method: str, messages: tuple[bytes, ...], connections: int, timeout_s: int
    ) -> None:
        self._address = (host, port)
        self._headers = [
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", f"{host}:{port}"),
            ("te", "trailers"), ("content-type", "application/grpc"), ("grpc-timeout", f"{timeout_s}S"),
        ]  # fmt: skip
        self._messages = tuple(struct.pack(">BI", 0, len(message)) + message for message in messages)
        self._count = connections
        self._connections: list[Connection] = []
        self._turn = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        try:
            for _ in range(self._count):
                _, connection = await loop.create_connection(lambda: Connection(self._headers), *self._address)
                self._connections.append(connection)
        except OSError as error:
            raise ServerError(str(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections:
            connection.close()
            await connection.wait_closed()

    def sender(self) -> Send:
        """What `dispatch.drive` needs."""

        def send(index: int) -> Awaitable[int]:
            return self._start(index).done

        return send

    async def ask(self, index: int) -> bytes:
        """The message that answers the prepared one of that index; raises ServerError."""
        call = self._start(index, keep=True)
        status = await call.done
        if status != OK or call.answer is None:
            raise ServerError(f"{STATUS_NAMES[status] if status < len(STATUS_NAMES) else status}: {call.told}")
        if len(call.answer) < 5 or call.answer[0] != 0 or len(call.answer) - 5 != int.from_bytes(call.answer[1:5]):
            raise ServerError(f"an answer of {len(call.answer)} bytes is not one uncompressed message")
        return bytes(call.answer[5:])

    def _start(self, index: int, *, keep: bool = False) -> Call:
        self._turn = (self._turn + 1) % len(self._connections)
        return self._connections[self._turn].start(self._messages[index], keep=keep)
