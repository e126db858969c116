"""A fuzzer's bytes as a script: any bytes say something, and bytes that are cut or changed say nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Script:
    """Reads from the front; after the end, everything is zero and empty."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def more(self) -> bool:
        return self._at < len(self._raw)

    def byte(self) -> int:
        part = self.take(1)
        return part[0] if part else 0

    def short(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def take(self, count: int) -> bytes:
        part = self._raw[self._at : self._at + count]
        self._at += len(part)
        return part

    def text(self) -> bytes:
        """As many bytes as the next one says."""
        return self.take(self.byte())

    def rest(self) -> bytes:
        return self.take(len(self._raw))

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]
