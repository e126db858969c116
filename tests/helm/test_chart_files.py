"""scripts/chart.py: the chart's files say what the server's settings and the schema say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.repository.check import check_paths
from erg_server.settings import merge, setting_fields

from scripts import chart


def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((chart.CHART / "values.schema.json").read_text(encoding="utf-8"))
    return read


def test_no_file_is_stale() -> None:
    assert chart.stale() == []


def test_a_file_that_differs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "erg"
    shutil.copytree(chart.CHART, copy)
    monkeypatch.setattr(chart, "CHART", copy)
    for name, old, new in (
        ("values.yaml", "replicaCount: null", "replicaCount: 2"),
        ("Chart.yaml", "version: ", "version: 9"),
        ("README.md", "| `tls.enabled`", "| `tls.on`"),
    ):
        text = (copy / name).read_text(encoding="utf-8")
        assert old in text
        (copy / name).write_text(text.replace(old, new), encoding="utf-8")
        assert chart.stale() == [copy / name]
        (copy / name).write_text(text, encoding="utf-8")


def test_every_setting_is_a_value_or_is_refused_with_where_it_is_set() -> None:
    settings = {each.name for each in setting_fields()}
    properties = schema()["properties"]["config"]["properties"]
    assert set(properties) == settings
    for name, each in properties.items():
        assert bool(each.get("readOnly")) == (name in chart.OWNED)


def test_the_checks_refuse_what_the_chart_sets() -> None:
    checks = (chart.CHART / "templates" / "_checks.tpl").read_text(encoding="utf-8")
    for name, owner in chart.OWNED.items():
        assert f'"{name}" "{owner}"' in checks


@pytest.mark.parametrize("name", ["grpc_port", "max_message_bytes", "worker_slot_bytes", "cpu_workers", "log_verbose"])
def test_bounds_of_a_whole_number_are_where_the_server_begins_to_refuse(name: str) -> None:
    def taken(value: int) -> bool:
        try:
            merge({"model_repository": ("models",), name: value})
        except InvalidArgumentError:
            return False
        return True

    bounds = chart.config_schema()[name]
    assert taken(bounds["minimum"])
    # A port that the kernel picks is the server's to take, and not the chart's.
    assert name.endswith("_port") or not taken(bounds["minimum"] - 1)
    if "maximum" in bounds:
        assert taken(bounds["maximum"])
        assert not taken(bounds["maximum"] + 1)


def test_a_bound_that_zero_is_outside_of_is_exclusive_for_a_fraction() -> None:
    assert chart.config_schema()["repository_poll_secs"]["exclusiveMinimum"] == 0


def test_every_value_has_words_a_type_and_a_default() -> None:
    for path, each in chart.leaves(schema()["properties"]):
        name = ".".join(path)
        assert each["description"].endswith((".", "?")), name
        assert "type" in each or "enum" in each or "allOf" in each, name
        assert "default" in each or (path[0] == "config" and "examples" in each), name


def test_no_table_of_values_takes_unknown_keys() -> None:
    def tables(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            if "properties" in value and isinstance(value["properties"], dict) and "$comment" not in value:
                yield path, value
            for key, each in value.items():
                yield from tables(each, f"{path}/{key}")

    found = dict(tables(schema(), ""))
    assert len(found) > 40
    assert [path for path, each in found.items() if each.get("additionalProperties") is not False] == []


def test_tables_and_lists_are_written_as_yaml_blocks() -> None:
    properties = {
        "a": {"description": "Words.", "type": "object", "default": {"b": [{"c": 1, "d": {}}, "x: y"], "e": None}}
    }
    assert chart.values_text(properties).split("\n\n", 1)[1] == (
        '# Words.\na:\n  b:\n    - c: 1\n      d: {}\n    - "x: y"\n  e: null\n'
    )


def test_the_built_in_model_is_one_that_the_server_loads(tmp_path: Path) -> None:
    version = tmp_path / "identity" / "1"
    version.mkdir(parents=True)
    (version / "README").write_text("no file of its own", encoding="utf-8")
    shutil.copy(chart.CHART / "files" / "identity.pbtxt", version.parent / "config.pbtxt")
    [report] = check_paths([tmp_path])
    assert (report.name, report.versions, report.problems) == ("identity", (1,), ())
