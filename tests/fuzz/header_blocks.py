"""Header blocks: the decoder with the shared cache against hpack's own, on several connections at once.

An input is a list of steps: blocks as they come, blocks of an encoder with its dynamic table and changes of its size,
earlier blocks again on any connection. Whatever their order, both decoders give the same heads or fail the same way.
"""

from __future__ import annotations

from unittest import mock

from tests.fuzz import fuzzer
from tests.fuzz.script import Script

with fuzzer.instrumented(__name__):
    import hpack
    from erg_server.transports.grpc import header_blocks
    from erg_server.transports.grpc.call_head import CallHead, parse_head
    from erg_server.transports.grpc.frames import ConnectionFault, ErrorCode
    from erg_server.transports.grpc.header_blocks import HeaderCache, HeaderDecoder

    from tests.server.transports.grpc.peer import REQUEST

LIMIT_BYTES = 1000
CONNECTIONS = 3
MOST_BLOCK_BYTES = 300
FIELDS: list[tuple[str, str]] = [
    *REQUEST,
    ("grpc-timeout", "1S"),
    ("grpc-encoding", "gzip"),
    ("x-id", "1"),
    ("x-id", "2"),
    ("x-bin", "AAEC"),
    ("x-long", "z" * 100),
    ("x-longer", "w" * 400),
    ("", ""),
    ("connection", "close"),
    (":path", "/again"),
]
TABLE_BYTES = [0, 31, 64, 100, 300, 1000, 4096, 5000]


class Link:
    """One connection: an encoder, the decoder under test, and one that keeps nothing."""

    def __init__(self, cache: HeaderCache) -> None:
        self.encoder = hpack.Encoder()
        self.cached = HeaderDecoder(cache, LIMIT_BYTES)
        self.plain = hpack.Decoder(LIMIT_BYTES)

    def take(self, block: bytes) -> bool:
        """Decode a block both ways; False where the connection ends."""
        expected = self._expected(block)
        try:
            found: CallHead | ErrorCode = self.cached.decode(block)
        except ConnectionFault as fault:
            found = fault.code
        assert found == expected, (found, expected)
        return not isinstance(expected, ErrorCode)

    def _expected(self, block: bytes) -> CallHead | ErrorCode:
        try:
            headers = self.plain.decode(block, raw=True)
        except hpack.OversizedHeaderListError:
            return ErrorCode.ENHANCE_YOUR_CALM
        except hpack.HPACKError:
            return ErrorCode.COMPRESSION_ERROR
        return parse_head([(bytes(name), bytes(value)) for name, value in headers])

    def check_tables(self) -> None:
        """Both decoders end with the same dynamic table."""
        mine, plain = self.cached._catch_up().header_table, self.plain.header_table
        assert mine.maxsize == plain.maxsize
        assert mine.dynamic_entries == plain.dynamic_entries


def check(raw: bytes) -> None:
    """Play a script; raises where the decoders differ, or the cache keeps more than it may."""
    script = Script(raw)
    # So small that results and tables are forgotten all the time.
    most, most_bytes = script.byte() % 8 + 1, script.one_of([16 << 20, 5000, 1200])
    with mock.patch.multiple(
        header_blocks, _MAX_KEPT=most, _MAX_BEHIND=most, _MAX_KEPT_BYTES=most_bytes, _MAX_KEPT_BLOCK=MOST_BLOCK_BYTES
    ):
        cache = HeaderCache()
        links = [Link(cache) for _ in range(CONNECTIONS)]
        blocks = [b""]
        while script.more:
            step = script.byte()
            number = step % CONNECTIONS
            block = _block(step >> 4 & 7, script, links[number], blocks)
            if block is None:
                links[number] = Link(cache)
            else:
                blocks.append(block)
                if not links[number].take(block):
                    links[number] = Link(cache)
            _check_bounds(cache, links, most)
        for link in links:
            link.check_tables()


def _block(step: int, script: Script, link: Link, blocks: list[bytes]) -> bytes | None:
    """The block of one step; None for a new connection in this one's place."""
    if step in {0, 1}:
        return script.text()
    if step == 2:
        return script.one_of(blocks)
    if step == 3:
        block = bytearray(script.one_of(blocks))
        at, value = script.byte(), script.byte()
        if block:
            block[at % len(block)] = value
        return bytes(block)
    if step == 4:
        return None
    if step == 5:
        link.encoder.header_table_size = script.one_of(TABLE_BYTES)
    how = script.byte()
    fields = [FIELDS[choice % len(FIELDS)] for choice in script.take(how & 7)]
    if how & 8:
        fields = [*REQUEST, *fields]
    return bytes(link.encoder.encode([(name, value, bool(how & 16)) for name, value in fields], huffman=bool(how & 32)))


def _check_bounds(cache: HeaderCache, links: list[Link], most: int) -> None:
    assert len(cache.results) <= most
    assert all(len(block) <= MOST_BLOCK_BYTES for _, block in cache.results)
    assert len(cache._numbers) <= most
    assert all(len(link.cached._behind) < max(most, 1) for link in links)


if __name__ == "__main__":
    fuzzer.run("header_blocks", check, max_bytes=1024)
