"""HTTP/2 frames (RFC 9113, sections 4 and 6): their types, flags, errors and the bytes of those a server sends."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
DEFAULT_WINDOW: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
MAX_WINDOW: Final = (1 << 31) - 1
MAX_FRAME_BYTES: Final = (1 << 24) - 1
MAX_STREAM: Final = (1 << 31) - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

unpack_header: Final = struct.Struct(">HBBBI").unpack_from
"""Length's upper 16 and lower 8 bits, type, flags, stream (whose top bit is reserved)."""
_pack_header: Final = struct.Struct(">HBBBI").pack
_pack_u32: Final = struct.Struct(">I").pack
_setting: Final = struct.Struct(">HI")


class ErrorCode(enum.IntEnum):
    """Why a stream or a connection ends (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(enum.IntEnum):
    """Parameters of SETTINGS (RFC 9113, section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class ConnectionFault(Exception):  # noqa: N818 (HTTP/2 calls it a connection error; so it is, of the peer's)
    """The peer broke the protocol so that the connection cannot go on; it ends with GOAWAY and this code."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """A frame's nine bytes."""
    return _pack_header(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: Iterable[tuple[Setting, int]]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_setting.pack(key, value) for key, value in values)
    return header(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK: Final = header(0, SETTINGS, ACK, 0)


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """The parameters of a SETTINGS payload, whose length is a multiple of six."""
    return list(_setting.iter_unpack(payload))


def ping(data: bytes, *, ack: bool) -> bytes:
    """A PING frame with its eight bytes."""
    return header(8, PING, ACK if ack else 0, 0) + data


def rst_stream(stream: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return header(4, RST_STREAM, 0, stream) + _pack_u32(code)


def window_update(stream: int, credit: int) -> bytes:
    """A WINDOW_UPDATE frame, of the connection for stream 0."""
    return header(4, WINDOW_UPDATE, 0, stream) + _pack_u32(credit)


def goaway(last_stream: int, code: int, reason: str = "") -> bytes:
    """A GOAWAY frame; `reason` is for whoever debugs the peer."""
    debug = reason.encode()[:256]
    return header(8 + len(debug), GOAWAY, 0, 0) + _pack_u32(last_stream) + _pack_u32(code) + debug
