"""What helm makes of rules and dashboards: the same, not a character of Prometheus' or Grafana's braces expanded."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.helm.chart import nested, render
from tests.monitoring.boards import BOARD_FILES
from tests.monitoring.rules import RULE_FILES


def test_the_chart_installs_rules_and_dashboards_as_they_are() -> None:
    objects = render(nested({"monitoring.prometheusRule.enabled": True, "monitoring.dashboards.enabled": True}))
    (rules,) = [each for each in objects if each["kind"] == "PrometheusRule"]
    assert rules["spec"]["groups"] == [
        group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]
    ]
    installed = {
        name: text
        for each in objects
        if each["kind"] == "ConfigMap" and each["metadata"]["labels"].get("grafana_dashboard")
        for name, text in each["data"].items()
    }
    assert installed == {path.name: Path(path).read_text() for path in BOARD_FILES}
