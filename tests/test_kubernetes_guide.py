"""The guide for Kubernetes names what there is: alerts, values, files and flags."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from erg_server.settings import setting_fields

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
SCHEMA: dict[str, Any] = json.loads((ROOT / "helm" / "erg" / "values.schema.json").read_text(encoding="utf-8"))
CODE = re.compile(r"`([^`\n]+)`")


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    alerts = {
        rule["alert"]
        for path in (ROOT / "helm" / "erg" / "files" / "rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert len(alerts) > 10
    assert set(re.findall(r"^### (Erg\w+)$", GUIDE, re.MULTILINE)) == alerts


def test_every_link_within_the_guide_leads_to_a_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    linked = set(re.findall(r"\]\(#([\w-]+)\)", GUIDE))
    assert linked
    assert linked <= anchors


def is_value(path: list[str]) -> bool:
    """Whether the chart has a value at this path."""
    at = SCHEMA
    for step in path:
        at = resolved(at)
        if "properties" not in at:
            # A map whose keys are the user's, as limits are.
            return isinstance(at.get("additionalProperties"), dict)
        if step not in at["properties"]:
            return False
        at = at["properties"][step]
    return True


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema, or the definition that it stands for."""
    (reference,) = [part["$ref"] for part in [schema, *schema.get("allOf", [])] if "$ref" in part] or [""]
    return SCHEMA["definitions"][reference.rsplit("/", 1)[1]] if reference else schema


def test_every_value_that_is_named_is_one_of_the_charts() -> None:
    named = {word.split(":")[0].strip() for word in CODE.findall(GUIDE)}
    values = {
        word for word in named if re.fullmatch(r"[a-z]\w*(\.\w+)*", word) and word.split(".")[0] in SCHEMA["properties"]
    }
    values = {word for word in values if "." in word or word in {"replicaCount", "guaranteed"}}
    assert len(values) > 30
    assert {value for value in values if not is_value(value.split("."))} == set()


def test_every_setting_of_the_chart_is_the_servers() -> None:
    stated = set(re.findall(r"config\.(\w+)", GUIDE))
    assert stated
    assert stated <= {field.name for field in setting_fields()}
