"""One connection of a real transport, its peer's bytes and its socket, and what must hold whatever they do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any
from unittest import mock

from erg_server.clock import ManualClock
from erg_server.transports.grpc import outbox, protocol, streaming_call
from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.frames import HEADER_BYTES, MAX_WINDOW, PREFACE, ErrorCode
from erg_server.transports.grpc.header_blocks import encode_headers
from erg_server.transports.grpc.limits import Limits
from erg_server.transports.grpc.messages import PREFIX_BYTES
from erg_server.transports.grpc.outbox import OK_TRAILERS
from erg_server.transports.grpc.protocol import ConnectionProtocol
from erg_server.transports.grpc.streaming_call import MESSAGE_OVERHEAD_BYTES

from tests.fuzz.fake_socket import FakeSocket, SteppedLoop
from tests.fuzz.wire_view import WireView
from tests.server.transports.grpc.peer import REQUEST, message, raw_frame
from tests.server.transports.grpc.served import infer, transport

QUEUED_FRAMES = 24
THRESHOLDS: list[tuple[Any, str, int]] = [
    (protocol, "MAX_QUEUED_FRAMES", QUEUED_FRAMES),
    (protocol, "JOIN_BYTES", 2000),
    (outbox, "CHUNK_BYTES", 1500),
    (outbox, "QUEUE_BYTES", 4000),
    (streaming_call, "STREAM_PENDING_BYTES", 3000),
]
"""What turns the server another way, so small that a script of few bytes reaches it."""
_FRAME_EXTRA_BYTES = 261
GREETING = PREFACE + raw_frame(4, 0, 0)
BYSTANDER = GREETING + raw_frame(1, 4, 1, encode_headers(REQUEST)) + raw_frame(0, 1, 1, message(infer("bystander")))


@contextlib.contextmanager
def tightened() -> Iterator[None]:
    """While small thresholds hold."""
    with contextlib.ExitStack() as stack:
        for module, name, value in THRESHOLDS:
            stack.enter_context(mock.patch.object(module, name, value))
        yield


class Errors(logging.Handler):
    """What a server's log would show as its own fault."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage())


class Session:
    """Echo over one connection. `step` follows each thing that happens and checks all that can be said of it."""

    def __init__(self, loop: SteppedLoop, limits: Limits, *, client_streaming: bool) -> None:
        self.loop = loop
        self.clock: ManualClock = loop.clock
        self.limits = limits
        self.transport = transport(limits=limits, clock=loop.clock, client_streaming=client_streaming)
        self.protocol = ConnectionProtocol(self.transport)
        self.view = WireView()
        self.socket = FakeSocket(loop, self.protocol, self.view.came)
        self._inbound = bytearray()
        self._came_bytes = 0
        self.protocol.connection_made(self.socket)

    @property
    def connection(self) -> Connection:
        return self.protocol.connection

    def deliver(self, raw: bytes) -> None:
        """Bytes of the peer reach the socket, and the server if it reads."""
        self.view.went(raw)
        self._inbound += raw
        self.read()

    def read(self) -> None:
        while self._inbound and self.socket.reading and not self.socket.gone:
            part = self._inbound[: len(self.transport.buffer)]
            del self._inbound[: len(part)]
            self._came_bytes = len(part)
            self.transport.buffer[: len(part)] = part
            self.protocol.buffer_updated(len(part))
            # The buffer is used again: what is kept of it must have been copied.
            self.transport.buffer[: len(part)] = b"\xee" * len(part)

    async def step(self, *, settle: bool) -> None:
        self.read()
        if settle:
            await self.loop.settle()
            self._check_progress()
        if self.connection.closing:
            self._check_closed()
        else:
            self._check_open()
        assert not self.loop.errors, self.loop.errors

    async def finish(self) -> None:
        """Another connection notices nothing; this one ends and leaves nothing behind."""
        await self.loop.settle()
        other = self.transport.new_connection()
        other.receive(memoryview(bytearray(BYSTANDER)))
        await self.loop.settle()
        said = b"".join(other.outbox.frames)
        assert b"bystander" in said
        assert said.endswith(OK_TRAILERS)
        other.lost()
        stopping = self.loop.create_task(self.transport.stop())
        await self.loop.settle()
        assert stopping.done(), "the transport does not stop"
        self._check_closed()
        assert self.transport._account.held_bytes == 0
        assert not self.transport._connections
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not self.loop.timers, self.loop.timers
        assert not self.loop.errors, self.loop.errors

    def _check_closed(self) -> None:
        connection = self.connection
        assert not connection.streams
        assert connection.held_bytes == 0
        assert connection.outbox.pending_bytes == 0
        assert not connection.outbox.blocked
        if connection.fault is not None:
            assert isinstance(connection.fault.code, ErrorCode)

    def _check_open(self) -> None:
        connection, limits = self.connection, self.limits
        sent, data = connection.outbox, connection._data
        assert connection.fault is None
        assert len(connection.streams) <= limits.concurrent_streams
        # Every byte of the connection's window is open, to be given back, or of a frame under way: none leaks.
        under_way = data.partial[1] + data.partial[3] if data.partial is not None else 0
        assert data._left >= 0
        assert data._left + data._credit + under_way == limits.connection_window_bytes
        assert 0 <= sent.window <= MAX_WINDOW
        held = 0
        for stream in connection.streams.values():
            call: Any = stream.call
            assert call is not None
            held += call._held + stream.pending_bytes
            assert 0 <= stream.receive_left <= max(limits.stream_window_bytes, limits.message_bytes + PREFIX_BYTES)
            assert stream.send_left <= MAX_WINDOW
            assert stream.pending_bytes == sum(map(len, stream.pending or ()))
            waits = bool(stream.pending_bytes and stream.send_left > 0)
            assert (stream.number in sent.blocked) >= waits, "a stream that may send is not asked to"
        assert held == connection.held_bytes == self.transport._account.held_bytes
        assert sent.pending_bytes == sum(stream.pending_bytes for stream in connection.streams.values())
        assert sent.blocked.keys() <= connection.streams.keys()
        self._check_memory(connection, limits)
        passed_s = (self.clock.now_ns() - connection.opened_ns) / 1e9
        assert self.view.costs <= limits.control_frames + limits.control_frames_per_s * passed_s

    def _check_memory(self, connection: Connection, limits: Limits) -> None:
        each = limits.message_bytes + PREFIX_BYTES + MESSAGE_OVERHEAD_BYTES
        # A request becomes its answer after the account was asked, once for each call.
        assert connection.held_bytes <= limits.connection_buffer_bytes + limits.concurrent_streams * each
        assert len(connection._held) <= HEADER_BYTES + limits.header_bytes + _FRAME_EXTRA_BYTES
        assert len(connection._headers._block) <= limits.header_bytes
        assert connection._headers._count <= limits.continuation_frames
        # What was queued before reading stopped, and what one read may add: an answer's parts for each nine bytes.
        most = QUEUED_FRAMES + self._came_bytes // 3 + 8 * len(connection.streams) + 16
        assert len(connection.outbox.frames) <= most

    def _check_progress(self) -> None:
        """Nothing that could be sent or answered is left lying."""
        connection = self.connection
        sent = connection.outbox
        if self.protocol.paused_ns is not None or self.socket.gone:
            return
        assert not sent.frames, "frames wait, and the socket takes them"
        if connection.closing:
            assert self.socket.ended
            return
        assert self.socket.reading, "the socket takes everything, and nothing is read"
        assert not (sent.blocked and sent.window > 0), "answers wait, and the windows are open"
        for stream in connection.streams.values():
            assert stream.pending_bytes or not stream.remote_closed, "a call that came whole is not answered"
