"""Finds what a recipe names: relative to the recipe, or inside an installed package; and functions in modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from erg_converters.errors import ConversionError

PACKAGE_PREFIX = "package:"


def find(location: str, base: Path) -> Path:
    """The path that `location` names, which need not exist: absolute, from `base`, or package:NAME/INSIDE.

    Raises:
        ConversionError: there is no such package.
    """
    if not location.startswith(PACKAGE_PREFIX):
        return base / Path(location).expanduser()
    package, _, inside = location.removeprefix(PACKAGE_PREFIX).partition("/")
    # Only a top-level name: `find_spec` imports the parents of any other, which would run a package's code.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConversionError(
            f"{location}: package '{package}' is not installed: pip install {package.replace('_', '-')}"
        )
    root = Path(spec.submodule_search_locations[0])
    found = root / inside
    if not found.resolve().is_relative_to(root.resolve()):
        raise ConversionError(f"{location}: leads out of the package; name what is inside of it")
    return found


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules of `folder` be imported meanwhile."""
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


def find_function(
    entry: str, base: Path, key: str, raising: type[ConversionError] = ConversionError
) -> Callable[..., Any]:
    """The function that module:function names; `base` is importable meanwhile, `key` is the recipe's key, for messages.

    Raises:
        ConversionError: as `raising`: no such module or function, or importing the module fails.
    """
    name, _, function = entry.partition(":")
    _forget_namesake(name, base)
    try:
        with importable(base):
            module = importlib.import_module(name)
    except Exception as error:
        raise raising(f"{key} = '{entry}': importing {name} failed: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise raising(f"{key} = '{entry}': {name} ({module.__file__}) has no function '{function}'")
    return found  # type: ignore[no-any-return]  # callable() says so


def _forget_namesake(name: str, base: Path) -> None:
    """Two recipes may each have a `data.py` beside them: the one that was imported for the other is not this one's."""
    own = base.resolve() / f"{name}.py"
    imported = sys.modules.get(name)
    if imported is not None and own.is_file() and getattr(imported, "__file__", None) != str(own):
        del sys.modules[name]
