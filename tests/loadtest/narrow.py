"""Tells the type checker, and the test, that a figure is there."""

from __future__ import annotations

from typing import TypeVar

_T = TypeVar("_T")


def known(value: _T | str | None) -> _T:
    assert value is not None
    assert not isinstance(value, str), value
    return value
