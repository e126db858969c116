"""Reads protobuf's text format, in which Triton's configurations are written, keeping the line of everything.

protobuf's own reader stops at the first fault and loses the lines of what it has read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf import text_encoding

from erg_server.repository.notation import MAX_DEPTH, Entry, Many, Node, NotationError, Table, Value, Word

_TOKEN = re.compile(
    r"""
    (?P<newline>\n) | (?P<blank>[^\S\n]+|\#[^\n]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    | (?P<number>-?\s*(?:
          0[xX][0-9a-fA-F]+ | (?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[fF]? | (?:infinity|inf|nan)\b))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<symbol>[{}<>\[\]:,;])
    """,
    re.VERBOSE | re.IGNORECASE,
)
_CLOSING = {"{": "}", "<": ">"}
_INTEGER = re.compile(r"-?[0-9]+|-?0[xX][0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


def parse_pbtxt(text: str) -> Table:
    """Parse a whole document; raises NotationError where it is not the text format."""
    return _Parser(text).document()


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a string that does not end on its line" if text[at] in "\"'" else f"an unexpected {text[at]!r}"
            raise NotationError(what, line)
        kind = match.lastgroup or ""
        if kind not in ("newline", "blank"):
            yield _Token(kind, match.group(), line)
        line += match.group().count("\n")
        at = match.end()
    yield _Token("end", "", line)


class _Parser:
    def __init__(self, text: str) -> None:
        self._source = _tokens(text)
        self._token = next(self._source)

    def document(self) -> Table:
        return self._table("", 1, 0)

    def _take(self) -> _Token:
        taken = self._token
        if taken.kind != "end":
            self._token = next(self._source)
        return taken

    def _takes(self, symbols: str) -> _Token | None:
        here = self._token
        return self._take() if here.kind == "symbol" and here.text in symbols else None

    def _table(self, closing: str, line: int, depth: int) -> Table:
        if depth > MAX_DEPTH:
            raise NotationError(f"nested more than {MAX_DEPTH} deep", self._token.line)
        entries: list[Entry] = []
        while True:
            token = self._take()
            if token.kind == "end" and not closing:
                return Table(tuple(entries), line)
            if token.kind == "symbol" and closing and token.text == closing:
                return Table(tuple(entries), line)
            if token.kind == "end":
                raise NotationError(f"the block opened on line {line} is not closed", token.line)
            if token.kind != "word":
                raise NotationError(f"expected a key, got {token.text!r}", token.line)
            entries.append(Entry(token.text, self._field(token, depth), token.line))
            self._takes(",;")

    def _field(self, key: _Token, depth: int) -> Node:
        colon = self._takes(":")
        if not colon and not (self._token.kind == "symbol" and self._token.text in "{<["):
            raise NotationError(f"expected ':' or '{{' after '{key.text}'", self._token.line)
        return self._node(key, depth)

    def _node(self, key: _Token, depth: int) -> Node:
        opened = self._takes("{<[")
        if opened is None:
            return self._scalar(key)
        if opened.text != "[":
            return self._table(_CLOSING[opened.text], opened.line, depth + 1)
        if depth > MAX_DEPTH:
            raise NotationError(f"nested more than {MAX_DEPTH} deep", opened.line)
        items: list[Node] = []
        while not self._takes("]"):
            if items and not self._takes(","):
                raise NotationError(f"expected ',' or ']' in the list '{key.text}'", self._token.line)
            items.append(self._node(key, depth + 1))
        return Many(tuple(items), opened.line)

    def _scalar(self, key: _Token) -> Value:
        token = self._take()
        if token.kind == "string":
            # Strings side by side are one string, as in C.
            raw = self._unescape(token)
            while self._token.kind == "string":
                raw += self._unescape(self._take())
            try:
                return Value(raw.decode("utf-8"), token.line)
            except UnicodeDecodeError:
                raise NotationError(f"the string of '{key.text}' is not UTF-8", token.line) from None
        if token.kind == "number":
            return Value(_number(token), token.line)
        if token.kind == "word":
            return Value(Word(token.text), token.line)
        raise NotationError(f"expected a value for '{key.text}', got {token.text or 'the end'!r}", token.line)

    @staticmethod
    def _unescape(token: _Token) -> bytes:
        try:
            return text_encoding.CUnescape(token.text[1:-1])
        except ValueError as error:
            raise NotationError(f"bad escape in a string: {error}", token.line) from None


def _number(token: _Token) -> int | float:
    text = "".join(token.text.split()).lower()
    if _INTEGER.fullmatch(text):
        if "x" in text:
            return int(text, 16)
        digits = text.lstrip("-")
        octal = len(digits) > 1 and digits.startswith("0")
        if len(digits) > 40 or (octal and not set(digits) <= set("01234567")):
            raise NotationError(f"{token.text[:50]} is not a number", token.line)
        return int(text, 8 if octal else 10)
    if text.endswith(("inf", "infinity")):
        return -math.inf if text.startswith("-") else math.inf
    return float(text.removesuffix("f"))
