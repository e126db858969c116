"""Each value of the chart changes what it says, and none is dead."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from erg_server import __version__

from tests.helm.chart import CHART, FULLNAME, SCHEMA, Object, at, find, load_yaml, nested, render
from tests.helm.values_table import ROWS, Row

# Tested by another table, or of Helm's own.
ELSEWHERE = ("config", "global")


def leaves(properties: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Every value that a user states, by path."""
    for name, schema in properties.items():
        path = f"{above}{name}"
        if path in ELSEWHERE:
            continue
        if "properties" in schema and "default" not in schema:
            yield from leaves(schema["properties"], f"{path}.")
        else:
            yield path


def stands(values: Mapping[str, Any], row: Row) -> Any:
    """What stands where the row says."""
    objects = render(nested(values))
    if row.kind in {"settings", "prices"}:
        configured = find([one for one in objects if one["metadata"]["name"] == FULLNAME], "ConfigMap")
        assert configured is not None
        text = configured["data"].get("erg.toml" if row.kind == "settings" else "prices.toml", "")
        return tomllib.loads(text).get(row.where)
    return at(object_of(objects, row.kind), row.where)


def object_of(objects: list[Object], kind: str) -> Object | None:
    """The object that a row names, if it is there."""
    if kind == "dashboard":
        return next((one for one in objects if one["metadata"]["name"].startswith(f"{FULLNAME}-dashboard-")), None)
    name, slash, suffix = kind.partition("/")
    return find(objects, name, FULLNAME + suffix if slash else None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.path}-{row.kind}-{row.where}")
def test_a_value_changes_what_it_says(row: Row) -> None:
    expected = row.expected.format(version=__version__) if "{version}" in str(row.expected) else row.expected
    assert stands(row.also | {row.path: row.value}, row) == expected
    without = row.also if row.otherwise is None else row.otherwise
    assert stands(without, row) != expected, "it stands there without the value too"


def test_no_value_is_without_a_row_in_the_table() -> None:
    assert set(leaves(SCHEMA["properties"])) == {row.path for row in ROWS}


def test_no_value_has_a_default_in_values_yaml_that_its_schema_does_not_know() -> None:
    (values,) = load_yaml((CHART / "values.yaml").read_text(encoding="utf-8"))

    def stray(stated: Mapping[str, Any], properties: Mapping[str, Any], above: str = "") -> Iterator[str]:
        for name, value in stated.items():
            if name not in properties:
                yield f"{above}{name}"
            elif isinstance(value, dict) and "properties" in properties[name]:
                yield from stray(value, properties[name]["properties"], f"{above}{name}.")

    assert list(stray(values, SCHEMA["properties"])) == []
