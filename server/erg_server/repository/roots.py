"""What lies in a repository's folder: models by name, or one model itself, as KServe's storage initializer has it."""

from __future__ import annotations

import os
from pathlib import Path

from erg_server.errors import InvalidArgumentError
from erg_server.repository.layout import CONFIG_FILENAMES, check_name, is_name, versions_on_disk

LONE_FILE = "model.onnx"


def model_folders(root: Path, single_name: str = "") -> dict[str, Path]:
    """The folder of each model in one repository, by name and sorted; none where it cannot be read.

    A folder without models that is itself one, with versions or a configuration in it, is served as that model alone:
    as `single_name`, or by its own name.
    """
    try:
        with os.scandir(root) as entries:
            names = [entry.name for entry in entries if is_name(entry.name) and entry.is_dir(follow_symlinks=False)]
    except OSError:
        return {}
    found = {name: root / name for name in sorted(names) if _has_model(root / name)}
    if not found and _has_model(root) and is_name(single_name or root.name):
        return {single_name or root.name: root}
    return found


def model_home(root: Path, name: str, single_name: str = "") -> Path | None:
    """The folder of one model in a repository, None where it has no such model."""
    path = root / name
    if not path.is_symlink() and path.is_dir() and _has_model(path):
        return path
    return root if name == (single_name or root.name) and model_folders(root, single_name).get(name) == root else None


def check_root(root: Path, single_name: str = "") -> None:
    """Return unless a repository is nearly one model, and would serve nothing.

    Raises:
        InvalidArgumentError: it is a model that has no name, or a model's file without a version.
    """
    if not root.is_dir():
        raise InvalidArgumentError(f"--model-repository {root}: there is no such folder")
    if single_name:
        check_name(single_name)
    if model_folders(root, single_name):
        return
    if _has_model(root):
        raise InvalidArgumentError(
            f"--model-repository {root}: it is one model's folder, and '{root.name[:140]}' cannot name a model; give "
            "its name by --model-name"
        )
    if (root / LONE_FILE).is_file():
        raise InvalidArgumentError(
            f"--model-repository {root}: {LONE_FILE} lies in it without a version; move it to 1/{LONE_FILE}, and the "
            "folder is served as one model"
        )


def _has_model(path: Path) -> bool:
    return any((path / name).exists() for name in CONFIG_FILENAMES) or bool(versions_on_disk(path))
