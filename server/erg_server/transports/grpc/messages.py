"""gRPC's length-prefixed messages: assembling them from DATA payloads, and their compression."""

from __future__ import annotations

import zlib
from typing import Final

from erg_server.errors import InternalError, ResourceExhaustedError, UnimplementedError

PREFIX_BYTES: Final = 5
MIN_COMPRESSED_BYTES: Final = 1024
"""Smaller answers are sent as they are: compressing them costs more than it saves."""
_MAX_RATIO: Final = 1000
_MAX_SMALL_BYTES: Final = 1 << 20
"""Bytes out of one byte in, for what is larger than `_MAX_SMALL_BYTES`. deflate reaches 1,030, on zeros alone."""
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}

Message = bytes | bytearray | memoryview


class MessageReader:
    """Cuts one stream's bytes into messages. Holds at most one incomplete message."""

    __slots__ = ("_buffer", "_encoding", "_limit")

    def __init__(self, encoding: str, limit_bytes: int) -> None:
        self._encoding = encoding
        self._limit = limit_bytes
        self._buffer = bytearray()

    @property
    def held_bytes(self) -> int:
        """Bytes of the incomplete message."""
        return len(self._buffer)

    @property
    def wanted_bytes(self) -> int:
        """Bytes that the incomplete message still lacks, as far as its prefix is known."""
        held = self._buffer
        if not held:
            return 0
        return PREFIX_BYTES + (int.from_bytes(held[1:5], "big") if len(held) >= PREFIX_BYTES else 0) - len(held)

    def feed(self, payload: memoryview) -> list[Message]:
        """The messages that `payload` completes.

        Raises:
            ErgError: a message is larger than the limit, or compressed in a way that was not announced.
        """
        complete: list[Message] = []
        while payload:
            held = self._buffer
            if len(held) < PREFIX_BYTES:
                missing = PREFIX_BYTES - len(held)
                held += payload[:missing]
                payload = payload[missing:]
                if len(held) < PREFIX_BYTES:
                    break
                self._check_prefix()
            size = int.from_bytes(held[1:5], "big")
            missing = PREFIX_BYTES + size - len(held)
            held += payload[:missing]
            payload = payload[missing:]
            if len(held) < PREFIX_BYTES + size:
                break
            complete.append(self._take())
        return complete

    def _check_prefix(self) -> None:
        size = int.from_bytes(self._buffer[1:5], "big")
        if size > self._limit:
            raise ResourceExhaustedError(f"the message has {size} bytes; at most {self._limit} are taken")
        if self._buffer[0] > 1:
            raise InternalError("a message's prefix starts with a byte that is neither 0 nor 1")
        if self._buffer[0] and self._encoding == "identity":
            raise InternalError("a compressed message came, and grpc-encoding announced none")

    def _take(self) -> Message:
        held, self._buffer = self._buffer, bytearray()
        if held[0]:
            return decompress(memoryview(held)[PREFIX_BYTES:], self._encoding, self._limit)
        return memoryview(held)[PREFIX_BYTES:]


def whole_message(payload: memoryview, limit_bytes: int) -> bytes | None:
    """The message, if `payload` is exactly one that is not compressed: the common case, in one copy."""
    size = len(payload) - PREFIX_BYTES
    if size < 0 or payload[0] or int.from_bytes(payload[1:5], "big") != size or size > limit_bytes:
        return None
    return bytes(payload[PREFIX_BYTES:])


def decompress(data: memoryview, encoding: str, limit_bytes: int) -> bytes:
    """Expand a message, never to more than `limit_bytes`.

    Raises:
        ErgError: it is not what `encoding` says, or expands too far.
    """
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnimplementedError(f"grpc-encoding '{encoding}' is not served")
    bound = min(limit_bytes, max(_MAX_SMALL_BYTES, len(data) * _MAX_RATIO))
    expander = zlib.decompressobj(bits)
    try:
        out = expander.decompress(data, bound + 1)
    except zlib.error as error:
        raise InternalError(f"the message is not {encoding}: {error}") from None
    if len(out) > bound:
        raise ResourceExhaustedError(f"the message expands to more than {bound} bytes")
    if not expander.eof or expander.unused_data:
        raise InternalError(f"the message is not one whole {encoding} stream")
    return out


def compress(data: Message, encoding: str) -> bytes:
    """Shrink a message for a caller that said it takes `encoding` (gzip or deflate)."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return packer.compress(data) + packer.flush()
