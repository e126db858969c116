"""A parsed document, whatever notation it came in: nested entries that remember their lines."""

from __future__ import annotations

from dataclasses import dataclass

Scalar = str | int | float | bool

MAX_DEPTH = 64
"""No configuration nests this deep; a document that does is an attack on the parser's stack."""


class Word(str):
    """A bare word of the text format: an enum's value, true or false. Never a string."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar and its line, 0 when unknown."""

    value: Scalar
    line: int

    def describe(self) -> str:
        """What this is, in words for an error."""
        return f"'{self.value}'" if isinstance(self.value, Word) else repr(self.value)


@dataclass(frozen=True, slots=True)
class Many:
    """A list and the line it starts on."""

    items: tuple[Node, ...]
    line: int

    def describe(self) -> str:
        """What this is, in words for an error."""
        return "a list"


@dataclass(frozen=True, slots=True)
class Table:
    """Keys and values, and the line they start on."""

    entries: tuple[Entry, ...]
    line: int

    def describe(self) -> str:
        """What this is, in words for an error."""
        return "a table"


Node = Value | Many | Table


@dataclass(frozen=True, slots=True)
class Entry:
    """One key and its value. In the text format the same key may come again."""

    key: str
    node: Node
    line: int


class NotationError(Exception):
    """The document is no document of its notation; nothing past `line` could be read."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
