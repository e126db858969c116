from __future__ import annotations

import random

import hpack
import pytest
from erg_server.transports.grpc import header_blocks
from erg_server.transports.grpc.call_head import CallHead, parse_head
from erg_server.transports.grpc.frames import ConnectionFault, ErrorCode
from erg_server.transports.grpc.header_blocks import HeaderCache, HeaderDecoder, encode_headers
from hypothesis import given
from hypothesis import strategies as st

from tests.server.transports.grpc.peer import REQUEST

NAMES = st.sampled_from(["grpc-timeout", "x-id", "authorization", "a" * 40, "user-agent"])
VALUES = st.one_of(st.sampled_from(["", "1", "z" * 500, "w" * 3000]), st.text(st.characters(codec="ascii"), max_size=9))
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # the connection
        LISTS,
        st.booleans(),  # huffman
        st.sampled_from([None, None, None, 0, 64, 300, 4096]),  # a new size of the table
        st.booleans(),  # one that never enters the table
    ),
    max_size=40,
)


class Link:
    """A connection's encoder, its decoder under test, and one that keeps nothing."""

    def __init__(self, cache: HeaderCache) -> None:
        self.encoder = hpack.Encoder()
        self.cached = HeaderDecoder(cache, 16 << 10)
        self.fresh = hpack.Decoder(16 << 10)


@given(STEPS, st.integers(1, 6))
def test_a_kept_result_is_what_decoding_gives(steps: list, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # So small that results and tables are forgotten all the time.
        patch.setattr(header_blocks, "_MAX_KEPT", most)
        patch.setattr(header_blocks, "_MAX_BEHIND", most)
        cache = HeaderCache()
        links = [Link(cache) for _ in range(4)]
        for number, fields, huffman, size, sensitive in steps:
            link = links[number]
            if size is not None:
                link.encoder.header_table_size = size
            headers = [(name, value, sensitive) for name, value in (*REQUEST, *fields)]
            block = link.encoder.encode(headers, huffman=huffman)
            plain = [(bytes(name), bytes(value)) for name, value in link.fresh.decode(block, raw=True)]
            assert link.cached.decode(block) == parse_head(plain)


@pytest.mark.interpreted
def test_connections_of_the_same_kind_share_what_they_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = HeaderCache()
    encoder = hpack.Encoder()
    blocks = [encoder.encode([*REQUEST, ("x-id", str(number % 3))]) for number in range(30)]
    first = HeaderDecoder(cache, 16 << 10)
    heads = [first.decode(block) for block in blocks]

    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(HeaderDecoder, "_decode", fail)
    second = HeaderDecoder(cache, 16 << 10)
    assert [second.decode(block) for block in blocks] == heads


def test_a_decoder_that_was_left_behind_catches_up() -> None:
    cache = HeaderCache()
    ahead, behind = Link(cache), Link(cache)
    for number in range(100):
        fields = [*REQUEST, ("x-id", str(number))]
        ahead.cached.decode(ahead.encoder.encode(fields))
        behind.cached.decode(behind.encoder.encode(fields))
    last = behind.encoder.encode([*REQUEST, ("x-id", "99"), ("new", "field")])
    assert ("x-id", "99") in behind.cached.decode(last).metadata


@pytest.mark.interpreted
def test_what_is_kept_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_blocks, "_MAX_KEPT_BYTES", 100_000)
    cache = HeaderCache()
    encoder, decoder = hpack.Encoder(), HeaderDecoder(cache, 16 << 10)
    for number in range(500):
        decoder.decode(encoder.encode([*REQUEST, ("x-id", f"{number}" * 100)]))
    kept = sum(len(block) + sum(len(value) for _, value in head.metadata) for (_, block), (head, _) in
               cache.results.items())  # fmt: skip
    assert kept < 100_000
    assert len(cache.results) < 100


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x40\x01",  # a name that ends too early
        b"\x00\x85\xff\xff\xff\xff\xff\x00",  # huffman with 32 bits of padding
        b"\x00\x81\x00\x81\xfe",  # huffman padding of zeros
        b"\x3f\xe2\x1f",  # a table larger than allowed
        b"\x82\x20",  # a table size update after a field
        b"\x00" + b"\xff" * 8000,
    ],
)
def test_a_block_that_is_none_is_a_compression_error(block: bytes) -> None:
    with pytest.raises(ConnectionFault) as caught:
        HeaderDecoder(HeaderCache(), 16 << 10).decode(block)
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_small_block_that_means_a_large_list_is_refused() -> None:
    decoder = HeaderDecoder(HeaderCache(), 16 << 10)
    decoder.decode(hpack.Encoder().encode([("x", "v" * 3000)]))
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(b"\xbe" * 6)
    assert caught.value.code is ErrorCode.ENHANCE_YOUR_CALM


@given(st.binary(max_size=60))
def test_any_bytes_are_a_head_or_a_fault(block: bytes) -> None:
    cache = HeaderCache()
    found = [_outcome(HeaderDecoder(cache, 1000), block) for _ in range(2)]
    try:
        fresh = hpack.Decoder(1000).decode(block, raw=True)
    except hpack.HPACKError:
        assert found[0] == found[1]
        assert found[0] in {ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM}
    else:
        assert found == [parse_head([(bytes(name), bytes(value)) for name, value in fresh])] * 2


def _outcome(decoder: HeaderDecoder, block: bytes) -> CallHead | ErrorCode:
    try:
        return decoder.decode(block)
    except ConnectionFault as fault:
        return fault.code


@given(st.lists(st.tuples(st.sampled_from(["a", "key", "k" * 200]), st.text(st.characters(max_codepoint=255)))))
def test_encoded_fields_are_read_back(fields: list[tuple[str, str]]) -> None:
    read = hpack.Decoder(1 << 20).decode(encode_headers(fields), raw=True)
    assert [(name.decode(), value.decode("latin-1")) for name, value in read] == fields


@given(st.binary(max_size=400))
def test_binary_fields_travel_as_base64_without_padding(raw: bytes) -> None:
    ((_, value),) = hpack.Decoder().decode(encode_headers([("a-bin", raw)]), raw=True)
    assert b"=" not in value
    head = parse_head([(name.encode(), text.encode()) for name, text in REQUEST] + [(b"a-bin", bytes(value))])
    assert head.metadata == (("a-bin", raw),)


def test_huffman_text_is_read() -> None:
    text = "".join(random.Random(1).choices([chr(code) for code in range(33, 127)], k=200))
    block = hpack.Encoder().encode([*REQUEST, ("a", text)], huffman=True)
    assert text.encode() not in block
    assert HeaderDecoder(HeaderCache(), 16 << 10).decode(block).metadata == (("a", text),)
