"""The command lines of the chart's containers are ones that the server's own commands take."""

from __future__ import annotations

import tomllib
from importlib import import_module
from typing import Any

import click
import pytest

from tests.helm.chart import ROOT, containers, example, nested, pod_templates, render

EVERY_FLAG: dict[str, dict[str, Any]] = {
    "fetch": {"models.fetch.from": ["s3://a/b"], "models.fetch.models": ["a"], "models.requireDigests": True},
    "infer": {"tls.enabled": True, "tls.secretName": "a", "test.tls.clientSecretName": "b"},
}


def command(name: str) -> click.Command:
    """A command of `erg`, as the wheel registers it."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    module, _, attribute = stated["project"]["entry-points"]["erg.commands"][name].partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What click makes of a command line, without running it."""
    name, *rest = arguments
    # A file that is to be there is in the pod, and not here.
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, _parameter, _context: value)
    return command(name).make_context(name, rest).params


def command_lines(values: Any) -> dict[str, list[str]]:
    """The arguments of each container of the chart's own, by name."""
    return {one["name"]: one["args"] for _, pod in pod_templates(render(values)) for one in containers(pod)}


def test_the_commands_take_the_arguments_of_every_container(example_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = command_lines(example(example_name))
    assert "erg" in lines
    for arguments in lines.values():
        assert parsed(arguments, monkeypatch)


@pytest.mark.parametrize("name", EVERY_FLAG)
def test_a_command_takes_every_flag_that_the_chart_can_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = (one for one in command_lines(nested(EVERY_FLAG[name])).values() if one[0] == name)
    flags = [one for one in line if one.startswith("--")]
    assert len(flags) >= 4
    parsed(line, monkeypatch)
