from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from erg_server.errors import ErgError, InternalError, ResourceExhaustedError
from erg_server.transports.grpc.messages import MessageReader, compress, decompress, whole_message
from hypothesis import given
from hypothesis import strategies as st

from tests.server.transports.grpc.peer import message

LIMIT = 1 << 20


@given(st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(0, 400)))
def test_messages_come_out_whole_however_they_are_cut(messages: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(map(message, messages))
    reader = MessageReader("identity", LIMIT)
    found: list[bytes] = []
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    for start, end in pairwise(edges):
        found += [bytes(each) for each in reader.feed(memoryview(raw)[start:end])]
        assert reader.held_bytes <= end
    assert found == messages
    assert reader.held_bytes == reader.wanted_bytes == 0


def test_a_reader_says_what_it_lacks() -> None:
    reader = MessageReader("identity", LIMIT)
    reader.feed(memoryview(message(bytes(100))[:3]))
    assert (reader.held_bytes, reader.wanted_bytes) == (3, 2)
    reader.feed(memoryview(message(bytes(100))[3:25]))
    assert (reader.held_bytes, reader.wanted_bytes) == (25, 80)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@given(st.binary(max_size=2000))
def test_what_was_compressed_expands_again(encoding: str, raw: bytes) -> None:
    packed = compress(raw, encoding)
    assert decompress(memoryview(packed), encoding, LIMIT) == raw
    reader = MessageReader(encoding, LIMIT)
    both = message(packed, compressed=True) + message(raw)
    assert [bytes(each) for each in reader.feed(memoryview(both))] == [raw, raw]


def test_compression_is_what_other_libraries_read() -> None:
    assert gzip.decompress(compress(b"x" * 1000, "gzip")) == b"x" * 1000
    assert zlib.decompress(compress(b"x" * 1000, "deflate")) == b"x" * 1000


@pytest.mark.parametrize(
    ("raw", "encoding", "error"),
    [
        (message(bytes(LIMIT + 1))[:5], "identity", ResourceExhaustedError),
        (b"\2\0\0\0\0", "identity", InternalError),
        (b"\1\0\0\0\0", "identity", InternalError),
        (message(b"not gzip", compressed=True), "gzip", InternalError),
        (message(gzip.compress(b"cut off")[:-4], compressed=True), "gzip", InternalError),
        (message(gzip.compress(b"a") + gzip.compress(b"b"), compressed=True), "gzip", InternalError),
        (message(b"", compressed=True), "gzip", InternalError),
        (message(gzip.compress(bytes(LIMIT + 1)), compressed=True), "gzip", ResourceExhaustedError),
    ],
)
def test_a_message_that_breaks_the_rules_is_an_error(raw: bytes, encoding: str, error: type[ErgError]) -> None:
    with pytest.raises(error):
        MessageReader(encoding, LIMIT).feed(memoryview(raw))


def test_what_expands_too_far_is_not_expanded() -> None:
    bomb = zlib.compress(bytes(40 << 20), 9)
    with pytest.raises(ResourceExhaustedError, match="expands"):
        decompress(memoryview(bomb), "deflate", 1 << 30)
    assert len(decompress(memoryview(compress(bytes(1 << 20), "gzip")), "gzip", 1 << 30)) == 1 << 20


@pytest.mark.parametrize("raw", [b"", b"\0\0\0\0", message(b"x")[:-1], message(b"x") + b"y", b"\1\0\0\0\0"])
def test_only_one_plain_whole_message_is_taken_in_one_go(raw: bytes) -> None:
    assert whole_message(memoryview(raw), LIMIT) is None


def test_a_whole_message_is_a_copy() -> None:
    buffer = bytearray(message(b"text"))
    found = whole_message(memoryview(buffer), LIMIT)
    buffer[:] = bytes(len(buffer))
    assert found == b"text"
