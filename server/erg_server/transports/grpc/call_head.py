"""What a request's header list says of its call: gRPC over HTTP/2's request headers, checked."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from erg_server.errors import StatusCode

Metadata = tuple[tuple[str, str | bytes], ...]

_TIMEOUT_NS: Final = {"H": 3600 * 10**9, "M": 60 * 10**9, "S": 10**9, "m": 10**6, "u": 10**3, "n": 1}
_CONNECTION_HEADERS: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_PSEUDO: Final = frozenset((b":method", b":scheme", b":path", b":authority"))
_RESERVED: Final = frozenset((b"te", b"content-type", b"user-agent", b"content-length"))
ENCODINGS: Final = ("identity", "gzip", "deflate")
MAX_TIMEOUT_NS: Final = 100 * 365 * 86_400 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class CallHead:
    """One call as its headers state it, or the trailers of one (`is_trailers`), which mean nothing here.

    `malformed` says why the request breaks HTTP/2 (the stream is reset); otherwise `refusal` says with which HTTP
    status, gRPC status and message the call is refused, None for a good one.
    """

    path: str = ""
    timeout_ns: int | None = None
    encoding: str = "identity"
    accepts: frozenset[str] = frozenset()
    metadata: Metadata = ()
    malformed: str = ""
    is_trailers: bool = False
    refusal: tuple[int, StatusCode, str] | None = None


def parse_head(headers: Sequence[tuple[bytes, bytes]]) -> CallHead:
    """Read a decoded header list; never raises."""
    pseudo: dict[bytes, bytes] = {}
    metadata: list[tuple[str, str | bytes]] = []
    plain: dict[bytes, bytes] = {}
    for name, value in headers:
        if name[:1] == b":":
            if plain or metadata or name in pseudo or name not in _PSEUDO:
                return CallHead(malformed=f"pseudo-header {name!r} is unknown, repeated or late")
            pseudo[name] = value
            continue
        fault = _fault(name, value)
        if fault:
            return CallHead(malformed=fault)
        if name in _RESERVED or name.startswith(b"grpc-"):
            plain[name] = value
        else:
            fault = _add_metadata(metadata, name, value)
            if fault:
                return CallHead(refusal=(200, StatusCode.INTERNAL, fault))
    if not pseudo:
        return CallHead(malformed=":method, :scheme and :path are missing", is_trailers=True)
    if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
        return CallHead(malformed=":method, :scheme or :path is missing")
    return _head(pseudo, plain, tuple(metadata))


def _head(pseudo: dict[bytes, bytes], plain: dict[bytes, bytes], metadata: Metadata) -> CallHead:
    if pseudo[b":method"] != b"POST":
        return CallHead(refusal=(405, StatusCode.INTERNAL, "gRPC calls are POST requests"))
    content_type = plain.get(b"content-type", b"")
    if content_type != b"application/grpc" and not content_type.startswith(
        (b"application/grpc+", b"application/grpc;")
    ):
        return CallHead(refusal=(415, StatusCode.INTERNAL, "the content-type of a gRPC call is application/grpc"))
    if plain.get(b"te", b"trailers") != b"trailers":
        return CallHead(malformed="te says something else than trailers")
    timeout_ns = None
    stated = plain.get(b"grpc-timeout")
    if stated is not None:
        timeout_ns = parse_timeout_ns(stated)
        if timeout_ns is None:
            return CallHead(refusal=(200, StatusCode.INTERNAL, "grpc-timeout is up to 8 digits and one of H M S m u n"))
    encoding = plain.get(b"grpc-encoding", b"identity").decode("latin-1")
    accepts = frozenset(
        part.strip() for part in plain.get(b"grpc-accept-encoding", b"").decode("latin-1").split(",") if part.strip()
    )
    return CallHead(
        path=pseudo[b":path"].decode("latin-1"),
        timeout_ns=timeout_ns,
        encoding=encoding,
        accepts=accepts,
        metadata=metadata,
        refusal=None
        if encoding in ENCODINGS
        else (200, StatusCode.UNIMPLEMENTED, f"grpc-encoding '{encoding}' is not one of {', '.join(ENCODINGS)}"),
    )


def parse_timeout_ns(stated: bytes) -> int | None:
    """The nanoseconds of a `grpc-timeout`, at most a century; None for one that is none."""
    text = stated.decode("latin-1")
    unit = _TIMEOUT_NS.get(text[-1:])
    digits = text[:-1]
    if unit is None or not 1 <= len(digits) <= 8 or not (digits.isascii() and digits.isdigit()):
        return None
    return min(int(digits) * unit, MAX_TIMEOUT_NS)


def _fault(name: bytes, value: bytes) -> str:
    if not name or name != name.lower() or any(byte <= 0x20 or byte >= 0x7F or byte == 0x3A for byte in name):
        return f"header name {name!r} is not allowed"
    if name in _CONNECTION_HEADERS:
        return f"header {name!r} belongs to HTTP/1"
    if any(byte in b"\0\r\n" for byte in value) or value[:1] in {b" ", b"\t"} or value[-1:] in {b" ", b"\t"}:
        return f"the value of header {name!r} is not allowed"
    return ""


def _add_metadata(metadata: list[tuple[str, str | bytes]], name: bytes, value: bytes) -> str:
    key = name.decode("ascii")
    if not key.endswith("-bin"):
        metadata.append((key, value.decode("latin-1")))
        return ""
    try:
        for part in value.split(b","):
            padded = part.strip() + b"=" * (-len(part.strip()) % 4)
            metadata.append((key, base64.b64decode(padded, validate=True)))
    except (binascii.Error, ValueError):
        return f"metadata '{key}' is not base64"
    return ""
