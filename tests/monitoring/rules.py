"""The rule files that the chart installs, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULE_FILES = sorted((ROOT / "helm/erg/files/rules").glob("*.yaml"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A recording or alerting rule: `record` or `alert` is "" for the other kind."""

    expr: str
    record: str = ""
    alert: str = ""
    hold: str = "0m"
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


def rules() -> list[Rule]:
    """Every rule of every file, in order."""
    found: list[Rule] = []
    for path in RULE_FILES:
        document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in document["groups"]:
            found += [
                Rule(**{{"for": "hold"}.get(key, key): value for key, value in rule.items()}) for rule in group["rules"]
            ]
    return found


def alerts() -> dict[str, Rule]:
    """The alerting rules by name."""
    return {rule.alert: rule for rule in rules() if rule.alert}
