"""One connection's socket: bytes into its state machine, its frames out, as the socket takes them."""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from erg_server.transports.grpc.connection import Connection

JOIN_BYTES = 64 << 10
"""Frames are joined into one write up to this; a larger part is written as it is, without a copy."""
HIGH_WATER_BYTES = 256 << 10


class ConnectionOwner(Protocol):
    """What a connection needs of its server."""

    loop: asyncio.AbstractEventLoop
    buffer: memoryview
    """Where sockets are read into. One for all: it is parsed before the next socket is read."""

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

    __slots__ = ("_flushing", "_owner", "_paused", "_receiving", "connection", "sent_ns", "transport")

    def __init__(self, owner: ConnectionOwner) -> None:
        self._owner = owner
        self.connection = owner.new_connection()
        self.connection.wake = self.wake
        self.transport: asyncio.Transport | None = None
        self._receiving = False
        self._flushing = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open: the server's SETTINGS go first."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        self._owner.connected(self)
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
        self._paused = True
        self.connection.outbox.writable = False

    def resume_writing(self) -> None:
        """It does again."""
        self._paused = False
        outbox = self.connection.outbox
        outbox.writable = True
        outbox.pump()
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        """The socket is closed, by whomever."""
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
        if transport is None or transport.is_closing():
            return
        frames = connection.outbox.frames
        if frames and not self._paused:
            if connection.outbox.queued_large:
                self._write_parts(transport)
            else:
                data = b"".join(frames)
                frames.clear()
                transport.write(data)
        if connection.closing and not frames:
            transport.close()

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
            if self._paused:
                outbox.frames = frames[at + 1 :] + outbox.frames
                return
        if small:
            transport.write(b"".join(small))
        outbox.queued_large = False
