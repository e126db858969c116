"""gRPC's messages: cut into pieces anyhow and compressed, against reading them at once.

An input is an encoding, limits, and a stream of messages as they come or built. The reader finds the messages that are
there, refuses the rest with one of three errors, and never holds or expands more than its limits.
"""

from __future__ import annotations

import zlib
from unittest import mock

from tests.fuzz import fuzzer
from tests.fuzz.script import Script

with fuzzer.instrumented(__name__):
    from erg_server.errors import ErgError, InternalError, ResourceExhaustedError
    from erg_server.transports.grpc import messages
    from erg_server.transports.grpc.messages import PREFIX_BYTES, MessageReader, compress, whole_message

RATIO, SMALL_BYTES = 20, 600
"""The caps of what a message may expand to, so small that inputs of a kilobyte reach them."""
ENCODINGS = ["identity", "gzip", "deflate"]
LIMITS = [0, 1, 40, 700, 5000]
BITS = {"gzip": 31, "deflate": 15}


Kinds = tuple[type[ErgError], ...]
"""Errors of which each refuses something rightly; empty where nothing is to be refused."""


def check(raw: bytes) -> None:
    """Play a script; raises where the reader differs from the plain reading, or passes a limit."""
    script = Script(raw)
    encoding, limit = script.one_of(ENCODINGS), script.one_of(LIMITS)
    cuts = [script.byte() for _ in range(script.byte() % 8)] or [0]
    body = b"".join(_parts(script, encoding))
    with mock.patch.multiple(messages, _MAX_RATIO=RATIO, _MAX_SMALL_BYTES=SMALL_BYTES):
        found, error = _read(MessageReader(encoding, limit), body, cuts, limit)
    expected, left, refusal = _plainly(body, encoding, limit)
    if refusal:
        assert isinstance(error, refusal), (error, refusal)
        # Messages that one piece completes before the fault are dropped with it: the call ends either way.
        assert found == expected[: len(found)]
        return
    assert error is None, error
    assert found == expected
    alone = len(expected) == 1 and not left and body[0] == 0
    assert whole_message(memoryview(body), limit) == (expected[0] if alone else None)


def _read(reader: MessageReader, body: bytes, cuts: list[int], limit: int) -> tuple[list[bytes], ErgError | None]:
    found: list[bytes] = []
    at = turn = 0
    while at < len(body):
        size = cuts[turn % len(cuts)] or len(body)
        piece = bytearray(body[at : at + size])
        wanted, before = reader.wanted_bytes, reader.held_bytes
        try:
            complete = reader.feed(memoryview(piece))
        except ErgError as error:
            return found, error
        # The buffer that a piece came in is used again: what is kept of it must have been copied.
        piece[:] = b"\xee" * len(piece)
        assert all(len(item) <= limit for item in complete)
        found += [bytes(item) for item in complete]
        assert reader.held_bytes < PREFIX_BYTES + limit
        if wanted and before >= PREFIX_BYTES:
            assert bool(complete) == (len(piece) >= wanted)
        at += size
        turn += 1
    return found, None


def _plainly(body: bytes, encoding: str, limit: int) -> tuple[list[bytes], int, Kinds]:
    """The messages of `body`, how many bytes are left over, and which errors refuse what follows the messages."""
    found: list[bytes] = []
    while len(body) >= PREFIX_BYTES:
        flag, size = body[0], int.from_bytes(body[1:5], "big")
        if size > limit:
            return found, 0, (ResourceExhaustedError,)
        if flag > 1 or (flag and encoding == "identity"):
            return found, 0, (InternalError,)
        if len(body) < PREFIX_BYTES + size:
            break
        packed, body = body[PREFIX_BYTES : PREFIX_BYTES + size], body[PREFIX_BYTES + size :]
        plain, refusal = _expanded(packed, encoding, limit) if flag else (packed, ())
        if refusal:
            return found, 0, refusal
        found.append(plain)
    return found, len(body), ()


def _expanded(packed: bytes, encoding: str, limit: int) -> tuple[bytes, Kinds]:
    # Not bounded, as deflate itself bounds an input of a kilobyte to a megabyte.
    bound = min(limit, max(SMALL_BYTES, RATIO * len(packed)))
    expander = zlib.decompressobj(BITS[encoding])
    try:
        out = expander.decompress(packed)
    except zlib.error:
        # It may pass the bound before the place where it is damaged.
        return b"", (InternalError, ResourceExhaustedError)
    if len(out) > bound:
        return b"", (ResourceExhaustedError,)
    return out, () if expander.eof and not expander.unused_data else (InternalError,)


def _parts(script: Script, encoding: str) -> list[bytes]:
    parts: list[bytes] = []
    while script.more:
        step = script.byte()
        plain = script.text() * (step >> 3)
        if step & 7 == 0:
            parts.append(plain)
            continue
        if step & 1 and encoding != "identity":
            packed = compress(plain, encoding)
            if step & 2:
                at = script.byte() % len(packed)
                packed = packed[:at] + script.text() + packed[at + script.byte() % 4 :]
            parts.append(b"\x01" + len(packed).to_bytes(4, "big") + packed)
        else:
            parts.append(bytes((step >> 1 & 3,)) + len(plain).to_bytes(4, "big") + plain)
    return parts


if __name__ == "__main__":
    fuzzer.run("messages", check, max_bytes=1024)
