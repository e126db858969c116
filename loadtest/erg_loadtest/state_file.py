"""Finished steps of a search or sweep in a file, so that one that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erg_loadtest.document import FORMAT, read_json
from erg_loadtest.errors import PlanError
from erg_loadtest.page import write_text


class StateFile:
    """The steps of one plan; each is written at once, whole. No path: nothing is kept."""

    def __init__(self, path: Path | None, digest: str) -> None:
        """Read what is there; raises PlanError where it belongs to another plan."""
        self._path = path
        self._digest = digest
        self.steps: list[Mapping[str, Any]] = []
        if path is None or not path.exists():
            return
        document = read_json(path)
        steps = document.get("steps")
        if document.get("kind") != "state" or not isinstance(steps, list):
            raise PlanError(f"{path}: not a state file of a search or sweep; name another one with --state")
        if document.get("digest") != digest:
            raise PlanError(
                f"{path}: holds the steps of another plan: delete it, name another one with --state, "
                "or repeat the command that wrote it"
            )
        self.steps = [step for step in steps if isinstance(step, Mapping)]

    def add(self, step: Mapping[str, Any]) -> None:
        """Keep a finished step."""
        self.steps.append(step)
        if self._path is not None:
            document = {"format": FORMAT, "kind": "state", "digest": self._digest, "steps": self.steps}
            write_text(self._path, json.dumps(document, allow_nan=False) + "\n")


def keyed(steps: Sequence[Mapping[str, Any]], key: str) -> dict[str, Mapping[str, Any]]:
    """Steps by one of their values."""
    return {str(step.get(key)): step for step in steps}
