"""A recipe: which model, how it is exported, what it must prove, where it goes. TOML, frozen, every key known."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from erg_converters.errors import RecipeError

Task = Literal["sentence-embedding", "feature-extraction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """`path` is a folder with config.json and safetensors, or `package:NAME/FOLDER` inside an installed package."""

    path: str
    kind: Literal["transformers"] = "transformers"
    license: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """`task` says what the graph ends in: normalised mean-pooled embeddings, or the last hidden state."""

    task: Task = "sentence-embedding"
    opset: int = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """Bounds on the difference from the source over every shape tried; outside them nothing is published."""

    max_absolute_difference: float = 1e-4
    min_cosine: float = 0.9999


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """The model repository, relative to the working folder, and the model's name in it."""

    repository: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe. `sha256` is of the file, so that a published version tells which recipe made it."""

    source: SourceSettings
    publish: PublishSettings
    export: ExportSettings = ExportSettings()
    gate: GateSettings = GateSettings()
    sha256: str = ""


_TABLES: dict[str, type] = {
    "source": SourceSettings,
    "export": ExportSettings,
    "gate": GateSettings,
    "publish": PublishSettings,
}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        RecipeError: unreadable, not TOML, an unknown or missing key, or a value of the wrong type.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    try:
        text = raw.decode()
        stated = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    tables: dict[str, Any] = {}
    for key, value in stated.items():
        kind = _TABLES.get(key)
        if kind is None:
            raise RecipeError(f"{path}:{_line(text, key)}: unknown table [{key}]{_hint(key, _TABLES)}")
        if not isinstance(value, dict):
            raise RecipeError(f"{path}:{_line(text, key)}: '{key}' is a table: write [{key}]")
        tables[key] = _table(path, text, key, kind, value)
    for name in ("source", "publish"):
        if name not in tables:
            raise RecipeError(f"{path}: table [{name}] is missing")
    return Recipe(**tables, sha256=hashlib.sha256(raw).hexdigest())


def _table(path: Path, text: str, table: str, kind: type, stated: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in stated.items():
        where = f"{path}:{_line(text, key, table)}: {table}.{key}"
        if key not in hints:
            raise RecipeError(f"{where} is unknown{_hint(key, hints)}")
        values[key] = _value(where, hints[key], value)
    missing = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if missing:
        raise RecipeError(f"{path}: {table}.{missing[0]} is missing")
    return kind(**values)


def _value(where: str, hint: Any, value: Any) -> Any:
    choices = typing.get_args(hint)
    if choices:
        if value not in choices:
            raise RecipeError(f"{where} is one of {', '.join(map(repr, choices))}, not {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise RecipeError(f"{where} takes a {hint.__name__}, not {value!r}")
    return value


def _hint(word: str, known: typing.Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(names)}"


def _line(text: str, key: str, table: str = "") -> int:
    """The line that states `key`, looked for below [table]; 1 where it is written some other way."""
    within = not table
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if table and stripped.startswith("["):
            within = stripped.strip("[] ") == table
        elif within and stripped.split("=")[0].strip().strip("\"'") == key:
            return number
        if not table and stripped.strip("[] ") == key:
            return number
    return 1
