"""Which fields the objects of an API have, from the classes that its Python client was generated into."""

from __future__ import annotations

import ast
import functools
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from tests.tools import tool_folder

_PYTHON: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_LIST, _DICT = re.compile(r"list\[(.+)\]"), re.compile(r"dict\(str, (.+)\)")
_REQUIRED = re.compile(r"Invalid value for `(\w+)`, must not be `None`")
# The client's type of a quantity is that of any string, and the API takes a number as well.
_QUANTITIES = {"limits", "requests", "sizeLimit"}

Fields = dict[str, tuple[str, bool]]


class ApiModels:
    """The classes of a client by name: each field's type, and whether it has to be there."""

    def __init__(self, *packages: str):
        self._classes: dict[str, Fields] = {}
        for package in packages:
            self._classes |= _classes(package)

    def problems(self, value: Any, class_name: str, path: str = "") -> Iterator[str]:
        """What the API does not know of an object, or misses in it."""
        fields = self._classes[class_name]
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no {class_name}"
            return
        for key, inner in value.items():
            if key not in fields:
                yield f"{path}.{key}: {class_name} has no such field"
            elif inner is not None:
                yield from self._of_type(inner, "quantity" if key in _QUANTITIES else fields[key][0], f"{path}.{key}")
        for key, (_, required) in fields.items():
            if required and value.get(key) is None:
                yield f"{path}.{key}: {class_name} needs it"

    def _of_type(self, value: Any, kind: str, path: str) -> Iterator[str]:
        if items := _LIST.fullmatch(kind):
            if not isinstance(value, list):
                yield f"{path}: {value!r} is no list"
                return
            for number, one in enumerate(value):
                yield from self._of_type(one, items[1], f"{path}[{number}]")
        elif entries := _DICT.fullmatch(kind):
            if not isinstance(value, dict):
                yield f"{path}: {value!r} is no map"
                return
            for key, one in value.items():
                yield from self._of_type(one, entries[1], f"{path}.{key}")
        elif kind in _PYTHON:
            python = _PYTHON[kind]
            if not isinstance(value, python) or (isinstance(value, bool) and bool not in python):
                yield f"{path}: {value!r} is no {kind}"
        elif kind in self._classes:
            yield from self.problems(value, kind, path)


@functools.cache
def _classes(package: str) -> dict[str, Fields]:
    found: dict[str, Fields] = {}
    with zipfile.ZipFile(tool_folder("api-models") / f"{package}.whl") as packed:
        for name in packed.namelist():
            if "/models/" in name and name.endswith(".py"):
                found |= dict(_class_fields(packed.read(name).decode()))
    return found


def _class_fields(text: str) -> Iterator[tuple[str, Fields]]:
    required = set(_REQUIRED.findall(text))
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            tables = {
                target.id: ast.literal_eval(statement.value)
                for statement in node.body
                if isinstance(statement, ast.Assign)
                for target in statement.targets
                if isinstance(target, ast.Name) and target.id in {"openapi_types", "attribute_map"}
            }
            if len(tables) == 2:
                types, names = tables["openapi_types"], tables["attribute_map"]
                yield node.name, {names[python]: (types[python], python in required) for python in types}
