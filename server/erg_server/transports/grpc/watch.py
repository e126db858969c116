"""Looks at a connection now and then: whether its peer goes on with what it began, and is there at all."""

from __future__ import annotations

from typing import Final

from erg_server.transports.grpc.connection import Connection
from erg_server.transports.grpc.frames import ConnectionFault, ErrorCode
from erg_server.transports.grpc.stream import Stream

RETIRE_NS: Final = 5_000_000_000
"""What a peer that was told of the end has to answer: more than any round trip."""


class Watch:
    """Over one connection. What it saw last is kept here and in the streams, so that frames pay nothing for it."""

    __slots__ = (
        "_aged_ns",
        "_connection",
        "_limits",
        "_pinged_ns",
        "_rested_ns",
        "_rests_until_ns",
        "_sent",
        "_sent_ns",
        "_socket",
        "_socket_ns",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._limits = connection.limits
        now_ns = connection.opened_ns
        self._pinged_ns = now_ns - 1
        # When it was retired for its age or idleness, 0 while it is not: a server that ends has other bounds.
        self._aged_ns = 0
        # What had gone out of the streams, and what the socket had not taken, when either was last seen to change.
        self._sent, self._sent_ns = 0, now_ns
        self._socket, self._socket_ns = 0, now_ns
        # Where nothing went on: when something comes due by time alone, and when the peer had sent something last. A
        # thousand connections at rest then cost next to nothing.
        self._rests_until_ns = self._rested_ns = 0

    def look(self, now_ns: int, *, socket_bytes: int, paused_ns: int | None) -> bool:
        """Say what is to be said now; False for a connection that is to be torn down without a word.

        `socket_bytes` wait in the socket's buffer, which has been full since `paused_ns` (None: it is not).
        """
        connection, limits = self._connection, self._limits
        if (
            now_ns < self._rests_until_ns
            and connection.progress_ns == self._rested_ns
            and not socket_bytes
            and not connection.closing
            and not connection.retiring
        ):
            return True
        if self._rests_until_ns:
            self._rests_until_ns = 0
            self._sent, self._sent_ns = connection.outbox.sent_bytes, now_ns
        if self._clogged(now_ns, socket_bytes, paused_ns):
            return False
        if connection.retiring and now_ns - connection.retired_ns > RETIRE_NS:
            connection.drain()
        if connection.closing:
            return True
        stall_ns = limits.stall_s * 1e9
        half_ns = connection.half_read_ns
        if not connection.established:
            if now_ns - connection.opened_ns > limits.handshake_s * 1e9:
                connection.fail(ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no SETTINGS came in time"))
        elif half_ns is not None and now_ns - half_ns > stall_ns:
            connection.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a frame began and did not end"))
        elif self._takes_nothing(now_ns):
            connection.fail(ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the connection's window stays closed"))
        else:
            for stream in list(connection.streams.values()):
                if self._stalled(stream, now_ns):
                    connection.reset(stream, ErrorCode.ENHANCE_YOUR_CALM)
            return self._look_at_age(now_ns)
        return True

    def _look_at_age(self, now_ns: int) -> bool:
        connection, limits = self._connection, self._limits
        silent_ns = now_ns - connection.progress_ns
        if self._aged_ns:
            if limits.age_grace_s and now_ns - self._aged_ns > limits.age_grace_s * 1e9:
                connection.fail(ConnectionFault(ErrorCode.NO_ERROR, "calls outlived the connection's age"))
        elif not connection.retiring and (
            (limits.idle_s and connection.idle and silent_ns > limits.idle_s * 1e9)
            or (limits.age_s and now_ns - connection.opened_ns > limits.age_s * 1e9)
        ):
            self._aged_ns = now_ns
            connection.retire()
        if self._pinged_ns > connection.progress_ns:
            return now_ns - self._pinged_ns <= limits.keepalive_timeout_s * 1e9
        if silent_ns > limits.keepalive_s * 1e9:
            self._pinged_ns = now_ns
            connection.ping()
        elif connection.idle and not connection.retiring and not connection.outbox.frames:
            self._rest()
        return True

    def _rest(self) -> None:
        """Nothing is going on: note when there will be something to say."""
        connection, limits = self._connection, self._limits
        self._rested_ns = connection.progress_ns
        due_s = min(limits.keepalive_s, limits.idle_s or limits.keepalive_s)
        until_ns = connection.progress_ns + due_s * 1e9
        if limits.age_s:
            until_ns = min(until_ns, connection.opened_ns + limits.age_s * 1e9)
        self._rests_until_ns = int(until_ns)

    def _clogged(self, now_ns: int, socket_bytes: int, paused_ns: int | None) -> bool:
        """Whether the socket takes nothing: TCP's window is closed, or its peer is gone."""
        if socket_bytes != self._socket or not socket_bytes:
            self._socket, self._socket_ns = socket_bytes, now_ns
        since_ns = self._socket_ns if paused_ns is None else min(paused_ns, self._socket_ns)
        return now_ns - since_ns > self._limits.stall_s * 1e9

    def _takes_nothing(self, now_ns: int) -> bool:
        """Whether answers wait for the connection's window, and nearly nothing of them went out."""
        outbox = self._connection.outbox
        if not outbox.blocked or outbox.sent_bytes - self._sent >= self._limits.stall_bytes:
            self._sent, self._sent_ns = outbox.sent_bytes, now_ns
        return now_ns - self._sent_ns > self._limits.stall_s * 1e9

    def _stalled(self, stream: Stream, now_ns: int) -> bool:
        """Whether a stream's caller neither goes on with its message nor takes its answer."""
        call = stream.call
        # Where it waits for the connection's window, or the socket, it is not the stream that stalls.
        waits = stream.pending_bytes and stream.send_left <= 0
        owes = call is not None and call.incomplete
        if not (waits or owes) or stream.moved_bytes - stream.seen_bytes >= self._limits.stall_bytes:
            stream.seen_bytes, stream.seen_ns = stream.moved_bytes, now_ns
        return now_ns - stream.seen_ns > self._limits.stall_s * 1e9
