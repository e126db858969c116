"""The dashboards: what the code generates, in Grafana's form, laid out without overlap, each query sound PromQL."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from scripts.dashboards import dashboards, main
from tests.monitoring.boards import BOARD_FILES, Shown, boards, shown
from tests.monitoring.promql import filled
from tests.monitoring.rules import alerts
from tests.monitoring.test_rules import promtool

GRID_WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

every_board = pytest.mark.parametrize("path", BOARD_FILES, ids=lambda path: path.name)


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(path.read_text())["panels"] if panel["type"] != "row"]


def test_the_files_are_what_the_code_generates() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in BOARD_FILES} == dashboards()


def test_a_stale_dashboard_is_told_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "erg-cost.json").write_text("{}")
    (tmp_path / "old.json").write_text("{}")
    assert main(["--check"], tmp_path) == 1
    assert capsys.readouterr().err.splitlines() == [
        "erg-cost.json: changed", "erg-serving.json: missing", "old.json: left over",
    ]  # fmt: skip
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    assert main(["--help"], tmp_path) == 2


@every_board
def test_grafanas_model_reads_and_writes_the_same(path: Path) -> None:
    register_default_plugins()
    text = path.read_text()
    read = Dashboard.from_json(json.loads(text))
    assert json.loads(JSONEncoder().encode(read)) == json.loads(text)


@every_board
def test_panels_fill_the_grid_without_overlap(path: Path) -> None:
    cells: dict[tuple[int, int], str] = {}
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_WIDTH, panel["title"]
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in cells, f"{panel['title']} is over {cells.get(cell)}"
            cells[cell] = panel["title"]
    height = 1 + max(y for _, y in cells)
    assert len(cells) == GRID_WIDTH * height, "a row has a gap"


@every_board
def test_every_panel_says_what_it_shows_and_in_which_unit(path: Path) -> None:
    seen = set()
    for panel in panels(path):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == SOURCE
        assert panel["targets"], panel["title"]
        assert all(target["datasource"] == SOURCE for target in panel["targets"])
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
        seen.add(panel["id"])
    assert len(seen) == len(panels(path))


@every_board
def test_thresholds_rise_from_a_first_step_without_a_value(path: Path) -> None:
    for panel in panels(path):
        thresholds = panel["fieldConfig"]["defaults"].get("thresholds")
        if thresholds:
            first, *rest = [step["value"] for step in thresholds["steps"]]
            assert first is None
            assert rest == sorted(rest)
            assert rest


@every_board
def test_variables_choose_the_data_source_servers_and_models(path: Path) -> None:
    board = json.loads(path.read_text())
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "namespace", "job", "pod", "model"]
    for variable in board["templating"]["list"][1:]:
        assert re.fullmatch(rf"label_values\(erg_\w+(\{{.*\}})?, {variable['name']}\)", variable["query"])
        assert variable["multi"]
        assert variable["allValue"] == ".*"
    used = {name for each in panels(path) for target in each["targets"]
            for name in re.findall(r"\$(?:__)?\w+", target["expr"])}  # fmt: skip
    assert used - {"$__rate_interval", "$__range"} == {f"${name}" for name in names[1:]}


def test_alerts_that_panels_name_are_there() -> None:
    named = {word for board in boards().values() for word in re.findall(r"\bErg[A-Z]\w+", json.dumps(board))}
    assert named
    assert named <= alerts().keys()
    assert all("Alerts of Erg" in [link["title"] for link in board["links"]] for board in boards().values())


def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": filled(each.expr)} for number, each in enumerate(shown())]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"SUCCESS: {len(shown())} rules found" in promtool("check", "rules", str(path))


def test_nothing_of_helms_is_in_what_helm_installs_as_it_is() -> None:
    for path in BOARD_FILES:
        # Grafana's legends and Prometheus' texts have braces of their own; Helm's name .Values, .Release and the like.
        assert not re.search(r"\{\{-?\s*(\.|include|template|if|range|end|toYaml)", path.read_text()), path.name


def test_every_query_limits_itself_to_the_servers_chosen() -> None:
    for each in shown():
        if "ALERTS" in each.expr:
            continue
        for braces in re.findall(r"\{([^}]*)\}", each.expr):
            assert braces.startswith('namespace=~"$namespace",job=~"$job",pod=~"$pod"'), each
        assert each.expr.count("{") == len(re.findall(r"\b(?:erg|nv)_\w+", _without_labels(each))), each


def _without_labels(each: Shown) -> str:
    return re.sub(r"\{[^}]*\}", "", each.expr)
