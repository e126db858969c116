"""Reads TOML and JSON into entries that remember their lines, where the notation's own reader forgets them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from erg_server.repository.notation import MAX_DEPTH, Entry, Many, Node, NotationError, Table, Value

_Path = tuple[str | int, ...]


def parse_toml(text: str) -> Table:
    """Parse a TOML document; raises NotationError where it is none."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Before Python 3.14 the position is only in the message: "… (at line 3, column 7)".
        message, _, place = str(error).partition(" (at line ")
        line = int(place.split(",")[0]) if place else text.count("\n") + 1
        raise NotationError(message, line) from None
    except RecursionError:
        raise NotationError(f"nested more than {MAX_DEPTH} deep", 1) from None
    return _table(document, (), _Locator(text).lines(), 1)


def parse_json(text: str) -> Table:
    """Parse a JSON object; raises NotationError where it is none, or names a key twice."""
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise NotationError(error.msg, error.lineno) from None
    except RecursionError:
        raise NotationError(f"nested more than {MAX_DEPTH} deep", 1) from None
    if not isinstance(document, dict):
        raise NotationError("expected a JSON object", 1)
    return _table(document, (), {}, 0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise NotationError(f"the key '{key}' is given twice", 0)
    return dict(pairs)


def _table(values: Mapping[str, Any], path: _Path, lines: Mapping[_Path, int], line: int) -> Table:
    if len(path) > MAX_DEPTH:
        raise NotationError(f"nested more than {MAX_DEPTH} deep", line)
    entries: list[Entry] = []
    for key, value in values.items():
        here = lines.get((*path, key), line)
        # In JSON null stands for a field left out; TOML has none.
        if value is not None:
            entries.append(Entry(key, _node(value, (*path, key), lines, here), here))
    return Table(tuple(entries), line)


def _node(value: Any, path: _Path, lines: Mapping[_Path, int], line: int) -> Node:
    if isinstance(value, dict):
        return _table(value, path, lines, line)
    if isinstance(value, list):
        if len(path) > MAX_DEPTH:
            raise NotationError(f"nested more than {MAX_DEPTH} deep", line)
        items = [
            _node(item, (*path, index), lines, lines.get((*path, index), line)) for index, item in enumerate(value)
        ]
        return Many(tuple(items), line)
    if isinstance(value, str | int | float):
        return Value(value, line)
    raise NotationError(f"a {type(value).__name__} has no place in a configuration", line)


class _Locator:
    """Finds the line of every key and list item of a document that is known to be valid TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted_to = 0
        self._counted = 1
        self._lines: dict[_Path, int] = {}
        self._array_sizes: dict[_Path, int] = {}

    def lines(self) -> Mapping[_Path, int]:
        table: _Path = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._text.startswith("[[", self._at):
                self._at += 2
                *outer, name = self._key()
                array = (*self._resolve((), outer), name)
                index = self._array_sizes.get(array, 0)
                self._array_sizes[array] = index + 1
                table = (*array, index)
                self._note(table)
                self._at += 2
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._resolve((), self._key())
                self._note(table)
                self._at += 1
            else:
                self._pair(table)
            self._skip_blank()
        return self._lines

    def _resolve(self, base: _Path, key: list[str]) -> _Path:
        """The path of a header's key: a name of an array of tables stands for its last table."""
        path = base
        for name in key:
            path = (*path, name)
            if path in self._array_sizes:
                path = (*path, self._array_sizes[path] - 1)
        return path

    def _note(self, path: _Path) -> None:
        self._counted += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], self._counted)

    def _skip_blank(self) -> None:
        while self._at < len(self._text):
            if self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text[self._at].isspace():
                self._at += 1
            else:
                return

    def _pair(self, table: _Path) -> None:
        path = (*table, *self._key())
        self._note(path)
        self._at = self._text.index("=", self._at) + 1
        self._value(path)

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip_blank()
            start = self._at
            if self._text[start] in "\"'":
                self._string()
                parts.append(next(iter(tomllib.loads(f"{self._text[start : self._at]}=0"))))
            else:
                while self._at < len(self._text) and (self._text[self._at].isalnum() or self._text[self._at] in "-_"):
                    self._at += 1
                parts.append(self._text[start : self._at])
            self._skip_blank()
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _string(self) -> None:
        quote = self._text[self._at]
        long = self._text.startswith(quote * 3, self._at)
        ending = quote * 3 if long else quote
        self._at += len(ending)
        while not self._text.startswith(ending, self._at):
            self._at += 2 if quote == '"' and self._text[self._at] == "\\" else 1
        self._at += len(ending)
        # A long string may end in one or two quotes of its own.
        while long and self._text.startswith(quote, self._at):
            self._at += 1

    def _value(self, path: _Path) -> None:
        self._skip_blank()
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first in "[{":
            self._collection(path, "]" if first == "[" else "}")
        else:
            while self._at < len(self._text) and self._text[self._at] not in ",]}\n#":
                self._at += 1

    def _collection(self, path: _Path, closing: str) -> None:
        self._at += 1
        index = 0
        while True:
            self._skip_blank()
            if self._text[self._at] == closing:
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
            elif closing == "]":
                self._note((*path, index))
                self._value((*path, index))
                index += 1
            else:
                self._pair(path)
