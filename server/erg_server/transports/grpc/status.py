"""How a call ends: the header blocks of statuses, errors and answers of each encoding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from erg_server.errors import ErgError, StatusCode
from erg_server.transports.grpc.header_blocks import STATUS_200, encode_headers

MAX_MESSAGE_BYTES: Final = 6144
"""Of a status message on the wire, where a byte may take three: callers take header lists of 8 KB and more."""

_CONTENT_TYPE: Final = (("content-type", "application/grpc"),)
RESPONSE_BLOCKS: Final = {
    encoding: STATUS_200 + encode_headers((*_CONTENT_TYPE, ("grpc-encoding", encoding)))
    for encoding in ("gzip", "deflate")
}
"""Headers of an answer whose messages are compressed."""


def error_block(
    code: StatusCode, message: str, metadata: Iterable[tuple[str, str | bytes]] = (), *, http_status: int = 200
) -> bytes:
    """A whole answer in one block: headers and trailers of a call that ends without a message."""
    status = STATUS_200 if http_status == 200 else encode_headers(((":status", str(http_status)),))
    return status + encode_headers(_CONTENT_TYPE) + trailers_block(code, message, metadata)


def trailers_block(code: StatusCode, message: str = "", metadata: Iterable[tuple[str, str | bytes]] = ()) -> bytes:
    """The trailers that end a call after its headers."""
    fields: list[tuple[str, str | bytes]] = [("grpc-status", str(int(code)))]
    if message:
        fields.append(("grpc-message", percent_encode(message)))
    return encode_headers((*fields, *metadata))


def percent_encode(message: str) -> str:
    """A status message as the wire has it: printable ASCII but the per cent sign, the rest as %XX of its UTF-8."""
    parts: list[str] = []
    size = 0
    for char in message:
        # A character's bytes stay together, so that what is cut is still text.
        if " " <= char <= "~" and char != "%":
            part = char
        else:
            part = "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "replace"))
        size += len(part)
        if size > MAX_MESSAGE_BYTES:
            break
        parts.append(part)
    return "".join(parts)


Status = tuple[StatusCode, str, Iterable[tuple[str, str]]]
"""Code, message and further trailers."""


def status_of(error: BaseException) -> Status | None:
    """An error's status, None for one that is nobody's business but the log's."""
    return (error.code, error.message, error.trailers) if isinstance(error, ErgError) else None
