"""One connection's socket: bytes into its state machine, its frames out, as the socket takes them."""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol, cast

from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.frames import ErrorCode
from erg_server.transports.grpc.watch import Watch

log = logging.getLogger(__name__)

JOIN_BYTES: Final = 64 << 10
"""Frames are joined into one write up to this; a larger part is written as it is, without a copy."""
HIGH_WATER_BYTES: Final = 256 << 10
MAX_QUEUED_FRAMES: Final = 1024
"""Frames that may wait while the socket takes none. More are not provoked: nothing is read until it does."""


class ConnectionOwner(Protocol):
    """What a connection needs of its server."""

    loop: asyncio.AbstractEventLoop
    buffer: memoryview
    """Where sockets are read into. One for all: it is parsed before the next socket is read."""

    def now_ns(self) -> int:
        """The server's clock."""
        ...

    def new_connection(self) -> Connection:
        """The state machine of a connection just accepted."""
        ...

    def connected(self, protocol: ConnectionProtocol) -> None:
        """A connection is there."""
        ...

    def disconnected(self, protocol: ConnectionProtocol) -> None:
        """It is gone."""
        ...


class ConnectionProtocol(asyncio.BufferedProtocol):
    """asyncio's side of a connection."""

    __slots__ = ("_flushing", "_linger", "_owner", "_receiving", "connection", "paused_ns", "transport", "watch")

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self.connection = owner.new_connection()
        self.connection.wake = self.wake
        self.watch = Watch(self.connection)
        self.transport: asyncio.Transport | None = None
        # Since when the socket's buffer is full, None while it is not.
        self.paused_ns: int | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._receiving = False
        self._flushing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open: the server's SETTINGS go first."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._owner.connected(self)
        tls = self.transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            # HTTP/2 over TLS is chosen by ALPN (RFC 9113, 3.2), and another protocol's bytes mean nothing here.
            self.transport.abort()
            return
        self.flush()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where to read to."""
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came: handle every frame of them, then send all answers that are ready in one go."""
        self._receiving = True
        try:
            self.connection.receive(self._owner.buffer[:nbytes])
        finally:
            self._receiving = False
        self.flush()

    def eof_received(self) -> bool:
        """The peer sends no more; a gRPC client that closes its side is gone."""
        return False

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self.paused_ns = self._owner.now_ns()
        self.connection.outbox.writable = False

    def resume_writing(self) -> None:
        """It does again."""
        self.paused_ns = None
        outbox = self.connection.outbox
        outbox.writable = True
        outbox.pump()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        """The socket is closed, by whomever."""
        if self._linger is not None:
            self._linger.cancel()
        fault = self.connection.fault
        if fault is not None and fault.code is not ErrorCode.NO_ERROR:
            log.info("a connection was ended for its peer's fault: %s: %s", fault.code.name, fault.reason)
        self.connection.lost()
        self._owner.disconnected(self)

    def wake(self) -> None:
        """Frames are there to be sent; those of one pass of the loop go together."""
        if not self._receiving and not self._flushing:
            self._flushing = True
            self._owner.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the socket takes, and close once everything has been said."""
        self._flushing = False
        transport, connection = self.transport, self.connection
        if transport is None or transport.is_closing() or self._linger is not None:
            return
        outbox = connection.outbox
        frames = outbox.frames
        if self.paused_ns is None:
            if frames:
                if outbox.queued_large:
                    self._write_parts(transport)
                    frames = outbox.frames
                else:
                    data = b"".join(frames)
                    frames.clear()
                    transport.write(data)
            if outbox.queued_bytes and not frames:
                outbox.queued_bytes = 0
                if outbox.blocked:
                    # One part of a large answer a turn of the loop, so that other connections have theirs.
                    outbox.pump()
                    self.wake()
        elif len(frames) > MAX_QUEUED_FRAMES:
            transport.pause_reading()
        if connection.closing and not outbox.frames:
            self._close(transport)

    def _close(self, transport: asyncio.Transport) -> None:
        """Let the peer read what was said: closing while it still sends would throw that away (RFC 9113, 5.4.1)."""
        linger_s = self.connection.limits.linger_s
        if linger_s and transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                # The peer closed before it could be told: what was just written came back as a reset.
                transport.abort()
                return
            self._linger = self._owner.loop.call_later(linger_s, self._lingered)
        else:
            transport.close()

    def _lingered(self) -> None:
        assert self.transport is not None
        if self.transport.get_write_buffer_size():
            # It still takes what was said; a peer that does not is the watch's.
            self._linger = self._owner.loop.call_later(self.connection.limits.linger_s, self._lingered)
        else:
            self.transport.abort()

    def _write_parts(self, transport: asyncio.Transport) -> None:
        outbox = self.connection.outbox
        frames, outbox.frames = outbox.frames, []
        small: list[bytes | memoryview] = []
        for at, part in enumerate(frames):
            if len(part) < JOIN_BYTES >> 2:
                small.append(part)
                continue
            if small:
                transport.write(b"".join(small))
                small.clear()
            transport.write(part)
            if transport.is_closing():
                # The peer is gone; asyncio warns of what is written all the same.
                return
            if self.paused_ns is not None:
                outbox.frames = frames[at + 1 :] + outbox.frames
                return
        if small:
            transport.write(b"".join(small))
        outbox.queued_large = False
