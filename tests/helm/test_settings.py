"""The settings and prices that the chart writes are what the server's own code reads."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from erg_server.money.price_file import Prices, read_price_file
from erg_server.repository.cli import check
from erg_server.settings import ServeSettings, is_repeatable, merge, read_settings_file, setting_fields, setting_type

from tests.helm.chart import FULLNAME, SCHEMA, at, example, find, nested, render

CONFIG: dict[str, Any] = SCHEMA["properties"]["config"]["properties"]
STATED = sorted(name for name, schema in CONFIG.items() if not schema.get("readOnly"))
# What a value needs beside it.
ALSO: dict[str, dict[str, Any]] = {"load_model": {"config.model_control_mode": "explicit"}}
# A value other than the default where the type has none that is plain.
OTHER: dict[str, Any] = {
    "grpc_port": 9001,
    "metrics_port": 9002,
    "memory_budget": ["cpu=1GiB"],
    "power_watts": ["cpu=1:2"],
    "tenant_metadata_key": "x-tenant",
    "worker_slot_bytes": 1 << 21,
}


def data(values: dict[str, Any] | Any) -> dict[str, str]:
    """The files of the ConfigMap."""
    configured = find([one for one in render(values) if one["metadata"]["name"] == FULLNAME], "ConfigMap")
    assert configured is not None
    files: dict[str, str] = configured["data"]
    return files


def loaded(values: dict[str, Any] | Any, folder: Path) -> ServeSettings:
    """What `erg serve --settings` makes of them."""
    path = folder / "erg.toml"
    path.write_text(data(values)["erg.toml"], encoding="utf-8")
    return merge(read_settings_file(path))


def prices(values: dict[str, Any] | Any, folder: Path) -> Prices:
    """What `erg serve --price-file` makes of them."""
    path = folder / "prices.toml"
    path.write_text(data(values)["prices.toml"], encoding="utf-8")
    return read_price_file(path)


def other_value(name: str) -> Any:
    """A value of the setting that is not its default."""
    (field,) = (item for item in setting_fields() if item.name == name)
    if name in OTHER:
        return OTHER[name]
    if field.metadata["choices"]:
        default = CONFIG[name].get("default", field.default)
        return next(choice for choice in field.metadata["choices"] if choice != default)
    if is_repeatable(name):
        return ["other"]
    kind = setting_type(name)
    if kind is bool:
        return not field.default
    return {str: "other", int: 3, float: 2.5}[kind]


def test_the_server_reads_the_settings_and_prices_of_every_example(example_name: str, tmp_path: Path) -> None:
    settings = loaded(example(example_name), tmp_path)
    assert settings.model_repository
    if settings.price_file:
        assert prices(example(example_name), tmp_path) != Prices()


@pytest.mark.parametrize("name", STATED)
def test_a_setting_of_the_chart_reaches_the_server_as_it_was_stated(name: str, tmp_path: Path) -> None:
    value = other_value(name)
    values = nested({f"config.{name}": value} | ALSO.get(name, {}))
    expected = tuple(value) if isinstance(value, list) else value
    assert getattr(loaded(values, tmp_path), name) == expected
    assert getattr(loaded(nested(ALSO.get(name, {})), tmp_path), name) != expected


def test_the_chart_knows_every_setting_of_the_server_and_no_other() -> None:
    assert set(CONFIG) == {field.name for field in setting_fields()}


@pytest.mark.parametrize("text", ['a"b', "a\\b", "ä€😀", "a#b", "a = 1", "{{ .Values }}", "1.0", "true", " ", "null"])
def test_a_text_is_not_changed_on_its_way_through_yaml_and_toml(text: str, tmp_path: Path) -> None:
    settings = loaded(nested({"config.log_file": text, "config.memory_budget": [text, text]}), tmp_path)
    assert settings.log_file == text
    assert settings.memory_budget == (text, text)


@pytest.mark.parametrize("number", [1, 20_000_000, 1 << 53])
def test_a_whole_number_is_not_rounded_on_its_way(number: int, tmp_path: Path) -> None:
    assert loaded(nested({"config.max_queue_bytes": number}), tmp_path).max_queue_bytes == number


@pytest.mark.parametrize("number", [0.25, 15, 1e-3, 86400.5])
def test_a_fraction_is_not_changed_on_its_way(number: float, tmp_path: Path) -> None:
    assert loaded(nested({"config.repository_poll_secs": number}), tmp_path).repository_poll_secs == number


def test_prices_reach_the_server_digit_by_digit(tmp_path: Path) -> None:
    stated = {
        "usd_per_kwh": 0.153,
        "pue": 1.25,
        "device_hour_usd": {"cpu": 0.04, "NVIDIA H100 80GB HBM3": 2.49, "gpu": 3},
        "carbon": {"grams_per_kwh": 380, "source": 'the grid\'s "mean", 2025'},
    }
    read = prices({"prices": stated}, tmp_path)
    assert read.usd_per_kwh == Fraction(153, 1000)
    assert read.pue == Fraction(5, 4)
    assert read.device_hour_usd == {
        "cpu": Fraction(1, 25),
        "NVIDIA H100 80GB HBM3": Fraction(249, 100),
        "gpu": Fraction(3),
    }
    assert read.carbon is not None
    assert dataclasses.astuple(read.carbon) == (Fraction(380), 'the grid\'s "mean", 2025')


def test_what_the_chart_mounts_is_where_its_settings_point(tmp_path: Path) -> None:
    values = nested(
        {
            "tls.enabled": True,
            "tls.secretName": "a",
            "tls.mutual.enabled": True,
            "prices": {"usd_per_kwh": 0.1},
        }
    )
    settings = loaded(values, tmp_path)
    container = at(find(render(values), "Deployment"), "spec.template.spec.containers[erg]")
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert container["args"] == ["serve", "--settings", "/etc/erg/erg.toml"]
    for path in (
        settings.price_file,
        settings.latency_cache,
        settings.grpc_server_cert,
        settings.grpc_server_key,
        settings.grpc_root_cert,
        f"{settings.trace_folder}/trace",
        f"{settings.model_repository[0]}/model",
        container["args"][2],
    ):
        assert any(path.startswith(f"{mount}/") for mount in mounted), path


def test_the_built_in_model_is_one_that_the_server_takes(tmp_path: Path) -> None:
    container = at(find(render({}), "Deployment"), "spec.template.spec.containers[erg]")
    for mount in container["volumeMounts"]:
        if "subPath" in mount:
            path = tmp_path / Path(mount["mountPath"]).relative_to("/models")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(data({})[mount["subPath"]], encoding="utf-8")
    checked = CliRunner().invoke(check, [str(tmp_path)])
    assert checked.exit_code == 0, checked.output
    assert "identity" in checked.output
