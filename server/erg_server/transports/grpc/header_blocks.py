"""Header blocks (RFC 7541): decoding by hpack, with results kept; encoding without a dynamic table.

The same client sends the same blocks again and again, once its table has settled. A block's meaning is a function of
the block and of the dynamic table before it, and so is the table after it. Both are kept under (table, block), where
equal tables have equal numbers on every connection: a second client of the same kind never decodes anything. A hit
leaves the connection's own decoder behind; the blocks that changed its table are replayed to it before the next miss.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

import hpack

from erg_server.transports.grpc.call_head import CallHead, parse_head
from erg_server.transports.grpc.frames import ConnectionFault, ErrorCode

_MAX_KEPT: Final = 4096
_MAX_KEPT_BYTES: Final = 16 << 20
_MAX_KEPT_BLOCK: Final = 1024
_FIELD_BYTES: Final = 200
"""What a field costs beside its text, as it is kept."""
_MAX_BEHIND: Final = 64
_EMPTY_TABLE: Final = 0

_Table = tuple[int, tuple[tuple[bytes, bytes], ...]]
"""Its maximum size and its entries: all that decoding depends on."""


class HeaderCache:
    """What blocks meant, shared by all connections of a server. Bounded in entries and bytes: a full one starts again.

    Forgetting is always sound: a table that was forgotten gets another number, never one that was used.
    """

    def __init__(self) -> None:
        self.results: dict[tuple[int, bytes], tuple[CallHead, int]] = {}
        self._numbers: dict[_Table, int] = {}
        self._next = _EMPTY_TABLE + 1
        self._result_bytes = 0
        self._table_bytes = 0

    def number(self, table: _Table) -> int:
        """The number of a dynamic table's content."""
        found = self._numbers.get(table)
        if found is None:
            self._table_bytes += _FIELD_BYTES + sum(_FIELD_BYTES + len(name) + len(value) for name, value in table[1])
            if len(self._numbers) >= _MAX_KEPT or self._table_bytes > _MAX_KEPT_BYTES:
                self._numbers.clear()
                self._table_bytes = 0
            found = self._numbers[table] = self._next
            self._next += 1
        return found

    def keep(self, key: tuple[int, bytes], head: CallHead, list_bytes: int, table: int) -> None:
        """Remember a result; `list_bytes` is the size of the decoded header list."""
        if len(key[1]) > _MAX_KEPT_BLOCK:
            return
        # The list's own measure has 32 bytes a field, which objects pass several times.
        self._result_bytes += _FIELD_BYTES + len(key[1]) + 4 * list_bytes
        if len(self.results) >= _MAX_KEPT or self._result_bytes > _MAX_KEPT_BYTES:
            self.results.clear()
            self._result_bytes = 0
        self.results[key] = head, table


class HeaderDecoder:
    """One connection's decoder."""

    __slots__ = ("_behind", "_cache", "_decoder", "_limit", "_table")

    def __init__(self, cache: HeaderCache, limit_bytes: int) -> None:
        self._cache = cache
        self._limit = limit_bytes
        self._table = _EMPTY_TABLE
        self._behind: list[bytes] = []
        self._decoder: hpack.Decoder | None = None

    def decode(self, block: bytes) -> CallHead:
        """The call that a block describes.

        Raises:
            ConnectionFault: the block is no header block (COMPRESSION_ERROR) or its list is over the limit.
        """
        key = (self._table, block)
        found = self._cache.results.get(key)
        if found is None:
            return self._decode(key)
        head, table = found
        if table != self._table:
            self._table = table
            self._behind.append(block)
            if len(self._behind) >= _MAX_BEHIND:
                self._catch_up()
        return head

    def _decode(self, key: tuple[int, bytes]) -> CallHead:
        decoder = self._catch_up()
        try:
            headers = decoder.decode(key[1], raw=True)
        except hpack.OversizedHeaderListError:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header list is too large") from None
        except hpack.HPACKError as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"header block: {error}") from None
        head = parse_head([(bytes(name), bytes(value)) for name, value in headers])
        entries = decoder.header_table
        self._table = self._cache.number((entries.maxsize, tuple(entries.dynamic_entries)))
        list_bytes = sum(32 + len(name) + len(value) for name, value in headers)
        self._cache.keep(key, head, list_bytes, self._table)
        return head

    def _catch_up(self) -> hpack.Decoder:
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = hpack.Decoder(self._limit)
        for block in self._behind:
            decoder.decode(block, raw=True)
        self._behind.clear()
        return decoder


def encode_headers(headers: Iterable[tuple[str, str | bytes]]) -> bytes:
    """A block of literal fields without indexing (RFC 7541, 6.2.2), which any decoder takes in any state."""
    parts: list[bytes] = []
    for name, value in headers:
        raw = value if isinstance(value, bytes) else value.encode("latin-1")
        if name.endswith("-bin"):
            raw = base64.b64encode(raw).rstrip(b"=")
        key = name.encode("ascii")
        parts += (b"\x00", _length(len(key)), key, _length(len(raw)), raw)
    return b"".join(parts)


def _length(size: int) -> bytes:
    """An integer with a 7-bit prefix whose top bit says "no huffman" (RFC 7541, 5.1)."""
    if size < 127:
        return bytes((size,))
    size -= 127
    out = bytearray(b"\x7f")
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


STATUS_200: Final = b"\x88"
"""`:status 200`, indexed in the static table."""
