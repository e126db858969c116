"""The dashboards that the chart installs, as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.monitoring.rules import ROOT

BOARD_FILES = sorted((ROOT / "helm/erg/files/dashboards").glob("*.json"))


@dataclass(frozen=True, slots=True)
class Shown:
    """One query of a panel."""

    board: str
    panel: str
    expr: str


def boards() -> dict[str, dict[str, Any]]:
    """Every dashboard by its file's name."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in BOARD_FILES}


def shown() -> list[Shown]:
    """Every query of every panel, and of the annotations."""
    found = []
    for name, board in boards().items():
        for panel in board["panels"]:
            found += [Shown(name, panel["title"], target["expr"]) for target in panel.get("targets", [])]
        found += [Shown(name, each["name"], each["expr"]) for each in board["annotations"]["list"]]
    return found
