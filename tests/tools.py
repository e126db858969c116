"""The programs that tests run and Python does not bring: helm, kubectl, promtool and others, from `make tools`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

FOLDER = Path(__file__).resolve().parents[1] / ".cache" / "tools"


def tool(name: str) -> Path:
    """The program of that name, as `make tools` laid it out, else the one on PATH.

    Where neither is, the test is skipped with the reason; under CI it fails, so that no test is lost unseen.
    """
    ours = FOLDER / "bin" / name
    if os.access(ours, os.X_OK):
        return ours
    on_path = shutil.which(name)
    if on_path is None:
        missing(name, name)
    return Path(on_path)


def tool_folder(name: str) -> Path:
    """What `make tools` fetched under that name (`crd-schemas`, `api-models`); skips or fails as `tool` does."""
    folder = FOLDER / name
    if not (folder / ".version").is_file():
        missing(name, name)
    return folder


def missing(tool_name: str, what: str) -> NoReturn:
    """Skip, or fail under CI, with what kept `make tools` from fetching it, where it was tried."""
    tried = FOLDER / "failed" / tool_name
    why = f": {tried.read_text(encoding='utf-8').strip()}" if tried.is_file() else ""
    reason = f"{what} is not here; `make tools` fetches it{why}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
