"""Passes are found by name, Erg's own and third parties'."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint

import pytest
from erg_converters.errors import PassError
from erg_converters.passes import registry
from erg_converters.passes.base import Pass
from erg_converters.passes.optimize_onnx import OptimizeOnnx

POINTS = {
    "third": EntryPoint("third", "erg_converters.passes.optimize_onnx:OptimizeOnnx", registry.ENTRY_POINT_GROUP),
    "optimize_onnx": EntryPoint("optimize_onnx", "builtins:dict", registry.ENTRY_POINT_GROUP),
    "broken": EntryPoint("broken", "a_package_that_is_not_there:Pass", registry.ENTRY_POINT_GROUP),
}


@pytest.fixture
def third_parties(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(*, group: str, name: str = "") -> list[EntryPoint]:
        assert group == "erg.passes"
        return [point for key, point in POINTS.items() if name in {"", key}]

    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize("name", sorted(registry.OWN_PASSES))
def test_every_own_pass_is_there_and_whole(name: str) -> None:
    kind = registry.pass_class(name)
    assert issubclass(kind, Pass)
    assert kind.name == name
    assert kind.cites
    assert kind.accepts
    assert dataclasses.is_dataclass(kind.Settings)
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(kind.Settings))
    step = kind(kind.Settings())
    assert step.tools()
    assert step.gives is not None


@pytest.mark.usefixtures("third_parties")
def test_third_parties_add_passes_and_replace_none() -> None:
    assert registry.pass_class("third") is OptimizeOnnx
    assert registry.pass_class("optimize_onnx") is OptimizeOnnx
    assert "third" in registry.pass_names()


@pytest.mark.usefixtures("third_parties")
def test_a_pass_whose_package_is_missing_says_which() -> None:
    with pytest.raises(PassError, match="pass 'broken' needs a_package_that_is_not_there"):
        registry.pass_class("broken")


def test_an_unknown_pass_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(PassError, match="no pass is called 'quantise'; did you mean 'quantize_static'"):
        registry.pass_class("quantise")
