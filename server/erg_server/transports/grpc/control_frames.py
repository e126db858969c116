"""The frames that carry no call: PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY and WINDOW_UPDATE of a peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from erg_server.transports.grpc import frames
from erg_server.transports.grpc.frames import ACK, ConnectionFault, ErrorCode, Setting

if TYPE_CHECKING:
    from erg_server.transports.grpc.connection import Connection

FIRST_PING: Final = b"erg-leav"
"""Its answer says that the peer knows of the first GOAWAY and opens no more streams."""
LAST_PING: Final = b"erg-last"
"""Its answer says that what the peer opened before it knew has come: gRPC's C core writes answers to pings ahead of the
streams that wait to be written with them."""


def take_priority(connection: Connection, _flags: int, number: int, payload: memoryview) -> None:
    """Ignored (RFC 9113, 5.3.2), but for its form."""
    if number == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY is for a stream")
    connection.spend("PRIORITY frames")
    if len(payload) != 5 and (stream := connection.streams.get(number)) is not None:
        connection.abort(stream, ErrorCode.FRAME_SIZE_ERROR)


def take_reset(connection: Connection, _flags: int, number: int, payload: memoryview) -> None:
    """The caller wants no answer; who wants none again and again is turned away (CVE-2023-44487)."""
    if len(payload) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
    connection.spend_reset()
    if number & 1 and number > connection.numbers.last:
        # gRPC's C core sends this for a call that it gave up before its HEADERS went out (grpc/grpc#19655). An idle
        # stream's reset should end the connection (RFC 9113, 6.4), and with it every other call of a sound client.
        return
    connection.numbers.check_known(number)
    stream = connection.streams.get(number)
    if stream is not None:
        connection.remove(stream)


def take_settings(connection: Connection, flags: int, number: int, payload: memoryview) -> None:
    """What the peer takes: its windows and frames."""
    if number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS is for the connection")
    if flags & ACK:
        if payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS acknowledgement is empty")
        connection.spend("SETTINGS frames")
        return
    if len(payload) % 6:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has six bytes a parameter")
    connection.spend("SETTINGS frames")
    # The last value of each counts; taking a thousand in turn would shift the windows of all streams a thousand times.
    stated = dict(frames.parse_settings(bytes(payload)))
    if stated.get(Setting.ENABLE_PUSH, 0) > 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
    outbox = connection.outbox
    frame_bytes = stated.get(Setting.MAX_FRAME_SIZE)
    if frame_bytes is not None:
        if not frames.DEFAULT_FRAME_BYTES <= frame_bytes <= frames.MAX_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"a maximum frame of {frame_bytes} bytes")
        outbox.take_frame_bytes(frame_bytes)
    if (table_bytes := stated.get(Setting.HEADER_TABLE_SIZE)) is not None:
        outbox.take_table_bytes(table_bytes)
    window = stated.get(Setting.INITIAL_WINDOW_SIZE)
    if window is not None:
        if window > frames.MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the initial window is over 2^31-1")
        outbox.resized(connection.streams.values(), window)
    outbox.frames.append(frames.SETTINGS_ACK)
    outbox.pump()


def take_ping(connection: Connection, flags: int, number: int, payload: memoryview) -> None:
    """Answered; an answer to ours only shows that the peer is there."""
    if number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING is for the connection")
    if len(payload) != 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
    connection.spend("PING frames")
    if not flags & ACK:
        connection.outbox.frames.append(frames.ping(bytes(payload), ack=True))
    elif connection.retiring:
        answered = bytes(payload)
        if answered == FIRST_PING:
            connection.outbox.frames.append(frames.ping(LAST_PING, ack=False))
        elif answered == LAST_PING:
            connection.drain()


def take_goaway(connection: Connection, _flags: int, number: int, payload: memoryview) -> None:
    """The peer is leaving: what is open is answered, and it is told that nothing more is."""
    if number:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY is for the connection")
    if len(payload) < 8:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has eight bytes at least")
    connection.spend("GOAWAY frames")
    connection.drain()


def take_window_update(connection: Connection, _flags: int, number: int, payload: memoryview) -> None:
    """The peer takes more, of a stream or of all."""
    if len(payload) != 4:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
    credit = int.from_bytes(payload, "big") & frames.MAX_WINDOW
    stream = connection.streams.get(number) if number else None
    if number and stream is None:
        connection.numbers.check_known(number)
        return
    if credit == 0:
        if stream is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        connection.abort(stream, ErrorCode.PROTOCOL_ERROR)
        return
    try:
        connection.outbox.opened(stream, credit)
    except OverflowError:
        assert stream is not None
        connection.abort(stream, ErrorCode.FLOW_CONTROL_ERROR)


CONTROL: dict[int, Callable[[Connection, int, int, memoryview], None]] = {
    frames.PRIORITY: take_priority,
    frames.RST_STREAM: take_reset,
    frames.SETTINGS: take_settings,
    frames.PING: take_ping,
    frames.GOAWAY: take_goaway,
    frames.WINDOW_UPDATE: take_window_update,
}
FIXED_SIZE: Final = frozenset((frames.PRIORITY, frames.RST_STREAM, frames.PING, frames.WINDOW_UPDATE))
