"""Reads TOML tables into frozen dataclasses: every key known, every value of its type, every error with its line."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import reprlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from erg_converters.errors import RecipeError

T = TypeVar("T")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")


def doc(text: str, *, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    """A field's metadata: what it means, for `erg convert explain`, and the bounds that its value, or each, keeps."""
    return {"doc": text, "low": low, "high": high}


class Lines:
    """Finds the line that states a key, so that an error can name it. A good guess, not a second parser."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._lines = text.splitlines()

    def where(self, table: str, index: int, key: str = "", part: str = "") -> str:
        """`file:line` of `key` in the `index`th [table] or [[table]]; `part` is a key inside of the key's value."""
        header = self._header(table, index)
        number = header
        if key:
            number = self._assignment(key, header) or self._header(f"{table}.{key}", 0, header) or header
        if part:
            number = self._assignment(part, max(number - 1, 0), inside=True) or number
        return f"{self.name}:{max(number, 1)}"

    def _header(self, table: str, index: int, after: int = 0) -> int:
        seen = -1
        for number, line in enumerate(self._lines[after:], after + 1):
            match = _HEADER.match(line)
            name = re.sub(r"[\s\"']", "", match[2]) if match else line.split("=")[0].strip().strip("\"'")
            if name == table and (match or "=" in line):
                seen += 1
                if seen == index:
                    return number
        return 0

    def _assignment(self, key: str, after: int, *, inside: bool = False) -> int:
        pattern = re.compile(rf"{'.*' if inside else ''}(?<![\w-])[\"']?{re.escape(key)}[\"']?\s*[.=]")
        for number, line in enumerate(self._lines[after:], after + 1):
            if pattern.match(line.lstrip()):
                return number
            if _HEADER.match(line) and not inside:
                return 0
        return 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a table was stated, for messages: which file and table, and the key that holds it if it is not its own."""

    lines: Lines
    table: str
    index: int = 0
    key: str = ""

    def error(self, key: str, problem: str) -> RecipeError:
        """The error that `problem` is, with file, line and key."""
        where = self.lines.where(self.table, self.index, self.key or key, key if self.key else "")
        path = ".".join(part for part in (self.table, self.key, key) if part)
        return RecipeError(f"{where}: {path} {problem}")


def fill(kind: type[T], stated: Mapping[str, Any], place: Place) -> T:
    """Build the dataclass `kind` of a TOML table.

    Raises:
        RecipeError: an unknown or missing key, or a value of the wrong type or out of its bounds.
    """
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]  # checked by the caller
    values: dict[str, Any] = {}
    for key, value in stated.items():
        if key not in fields:
            raise place.error(key, f"is unknown{suggestion(key, fields)}")
        try:
            values[key] = typed(hints[key], value)
            _check_bounds(values[key], fields[key].metadata)
        except ValueError as error:
            raise place.error(key, str(error)) from None
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise place.error(name, f"is missing: {field.metadata.get('doc', 'it has no default')}")
    return kind(**values)


def typed(hint: Any, value: Any) -> Any:
    """`value` as the type that `hint` says; raises ValueError with what it takes instead."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise ValueError(
                f"is one of {', '.join(map(repr, arguments))}, not {shown(value)}{_close(value, arguments)}"
            )
        return value
    if origin in {types.UnionType, typing.Union}:
        return _one_of(arguments, value)
    if origin is tuple:
        return _sequence(arguments, value)
    if origin in {dict, Mapping}:
        if not isinstance(value, dict):
            raise ValueError(f"takes a table, {{ key = value }}, not {shown(value)}")
        return {key: typed(arguments[1], item) for key, item in value.items()}
    if hint is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            raise ValueError("is too large a number") from None
    if type(value) is not hint:
        raise ValueError(f"takes {_NAMES.get(hint, getattr(hint, '__name__', hint))}, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """A value for a message: short, whatever it is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number of thousands of digits"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what there is."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(names)}"


def _sequence(arguments: Sequence[Any], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise ValueError(  # noqa: TRY004  # every mistake in a value is one to the caller
            f"takes a list, not {shown(value)}"
        )
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(typed(arguments[0], item) for item in value)
    if len(value) != len(arguments):
        raise ValueError(f"takes a list of {len(arguments)}, not {shown(value)}")
    return tuple(typed(hint, item) for hint, item in zip(arguments, value, strict=True))


def _one_of(arguments: Sequence[Any], value: Any) -> Any:
    """The first type of a union that takes the value; TOML has no null, so that None is only ever a default."""
    problem = ""
    for hint in arguments:
        if hint is type(None):
            continue
        try:
            return typed(hint, value)
        except ValueError as error:
            problem = problem or str(error)
    raise ValueError(problem)


def _close(value: Any, choices: Iterable[Any]) -> str:
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices if choice], n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _check_bounds(value: Any, metadata: Mapping[str, Any]) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, int | float) or isinstance(number, bool):
            continue
        if not math.isfinite(number):
            raise ValueError(f"takes a finite number, not {shown(number)}")
        low, high = metadata.get("low"), metadata.get("high")
        if (low is not None and number < low) or (high is not None and number > high):
            bounds = " and ".join(
                text for text in (low is not None and f"at least {low}", high is not None and f"at most {high}") if text
            )
            raise ValueError(f"is {bounds}, not {shown(number)}")
