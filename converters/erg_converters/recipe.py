"""A recipe: which model, what is tried on it, what it must prove, where it goes. TOML, frozen, every key known."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from erg_converters.errors import RecipeError
from erg_converters.recipe_checks import check_recipe
from erg_converters.settings import (
    CandidateSettings,
    ChooseSettings,
    DataSettings,
    ExportSettings,
    GateSettings,
    InputSettings,
    MeasureSettings,
    PassStep,
    PublishSettings,
    Recipe,
    SourceSettings,
)
from erg_converters.tables import Lines, Place, fill, shown, suggestion

__all__ = [
    "CandidateSettings", "ChooseSettings", "DataSettings", "ExportSettings", "GateSettings", "InputSettings",
    "MeasureSettings", "PassStep", "PublishSettings", "Recipe", "SourceSettings", "pass_settings", "read_recipe",
]  # fmt: skip

S = TypeVar("S")

TABLES: dict[str, type] = {
    "source": SourceSettings,
    "export": ExportSettings,
    "calibration": DataSettings,
    "evaluation": DataSettings,
    "gate": GateSettings,
    "measure": MeasureSettings,
    "choose": ChooseSettings,
    "publish": PublishSettings,
}
LISTS: dict[str, type] = {"input": InputSettings, "candidate": CandidateSettings}
_REQUIRED = ("source", "publish")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file. The passes' own settings are left for `pass_settings`, once the passes are known.

    Raises:
        RecipeError: unreadable, not TOML, an unknown or missing key, a value of the wrong type or out of its bounds, or
            tables that do not fit each other. The message has file, line, key and what to write instead.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    try:
        text = raw.decode()
        stated = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    lines = Lines(str(path), text)
    tables: dict[str, Any] = {}
    for key, value in stated.items():
        if key in TABLES:
            if not isinstance(value, dict):
                raise RecipeError(f"{lines.where(key, 0)}: '{key}' is a table: write [{key}]")
            tables[key] = fill(TABLES[key], value, Place(lines=lines, table=key))
        elif key in LISTS:
            tables[f"{key}s"] = _list(key, value, lines)
        else:
            raise RecipeError(f"{lines.where(key, 0)}: unknown table [{key}]{suggestion(key, [*TABLES, *LISTS])}")
    for name in _REQUIRED:
        if name not in tables:
            raise RecipeError(f"{path}: table [{name}] is missing; `erg convert init MODEL` writes a whole recipe")
    recipe = Recipe(**tables, path=path, sha256=hashlib.sha256(raw).hexdigest(), lines=lines)
    check_recipe(recipe, lines)
    return recipe


def pass_settings(step: PassStep, kind: type[S]) -> S:
    """The settings of one entry of `passes`, as the pass's own dataclass; raises RecipeError with file and line."""
    return fill(kind, step.stated, step.place)


def _list(key: str, value: Any, lines: Lines) -> tuple[Any, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise RecipeError(f"{lines.where(key, 0)}: '{key}' is a list of tables: write [[{key}]]")
    found: list[Any] = []
    for index, item in enumerate(value):
        place = Place(lines=lines, table=key, index=index)
        if key != "candidate":
            found.append(fill(LISTS[key], item, place))
            continue
        rest = {name: stated for name, stated in item.items() if name != "passes"}
        # Built without its passes first: a wrong name or backend is told before anything inside of the passes.
        plain = fill(CandidateSettings, rest, place)
        passes = _passes(item.get("passes", []), place)
        found.append(
            CandidateSettings(name=plain.name, backend=plain.backend, precision=plain.precision, passes=passes)
        )
    return tuple(found)


def _passes(value: Any, place: Place) -> tuple[PassStep, ...]:
    usage = 'is a list of tables: passes = [{ pass = "quantize_dynamic" }]'
    if not isinstance(value, list):
        raise place.error("passes", usage)
    steps = []
    inside = Place(lines=place.lines, table=place.table, index=place.index, key="passes")
    for item in value:
        if not isinstance(item, Mapping):
            raise place.error("passes", usage)
        name = item.get("pass")
        if not isinstance(name, str) or not name:
            raise inside.error("pass", f'names the pass, as in {{ pass = "quantize_dynamic" }}, not {shown(name)}')
        stated = {key: setting for key, setting in item.items() if key != "pass"}
        steps.append(PassStep(name=name, stated=stated, place=inside))
    return tuple(steps)
