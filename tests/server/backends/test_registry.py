"""Backends by entry point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint

import pytest
from erg_server.backends import registry
from erg_server.backends.identity import IdentityBackend
from erg_server.backends.registry import backend_names, create_backend
from erg_server.errors import InvalidArgumentError, UnimplementedError


def points(*stated: tuple[str, str]) -> Callable[..., Sequence[EntryPoint]]:
    every = [EntryPoint(name, value, "erg.backends") for name, value in stated]

    def entry_points(*, group: str, name: str | None = None) -> Sequence[EntryPoint]:
        return [point for point in every if point.group == group and name in {None, point.name}]

    return entry_points


def test_the_built_in_backends_are_there() -> None:
    assert {"identity", "onnxruntime"} <= set(backend_names())
    assert isinstance(create_backend("identity"), IdentityBackend)


def test_a_third_partys_backend_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", points(("theirs", "erg_server.backends.identity:IdentityBackend")))
    assert backend_names() == ("theirs",)
    assert isinstance(create_backend("theirs"), IdentityBackend)


def test_an_unknown_backend_is_answered_with_those_installed() -> None:
    with pytest.raises(InvalidArgumentError, match=r"no backend is called 'tenserrt'; installed are .*onnxruntime"):
        create_backend("tenserrt")


def test_a_backend_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "entry_points", points(("theirs", "no_such_library.backend:Backend")))
    with pytest.raises(UnimplementedError, match=r"'theirs' needs no_such_library, which is not installed$"):
        create_backend("theirs")


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "cpu"), ("openvino", "openvino")])
def test_a_backend_of_ours_without_its_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr(registry, "entry_points", points((name, "no_such_library.backend:Backend")))
    with pytest.raises(UnimplementedError, match=rf"is not installed: pip install 'erg\[{extra}\]'"):
        create_backend(name)
