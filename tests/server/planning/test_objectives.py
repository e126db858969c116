from __future__ import annotations

import dataclasses

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.planning.objectives import parse_objectives
from erg_server.simulation.simulation import simulated_spec

from tests.server.planning.builders import MS, traffic


def applied(stated: list[str], *, configured_ms: int = 0, in_load_ms: int = 0) -> float:
    spec = simulated_spec("m", max_rows=1, objective_ns=configured_ms * MS)
    load = dataclasses.replace(traffic(), objective_ns=in_load_ms * MS)
    return parse_objectives(stated).applied(spec, load).objective_ns / MS


def test_the_configuration_states_the_objective() -> None:
    assert applied([], configured_ms=20) == 20
    assert applied([]) == 0


def test_the_load_file_overrides_the_configuration() -> None:
    assert applied([], configured_ms=20, in_load_ms=30) == 30


def test_a_named_objective_overrides_both_and_an_unnamed_one_neither() -> None:
    assert applied(["m=40"], configured_ms=20, in_load_ms=30) == 40
    assert applied(["40"], configured_ms=20) == 20
    assert applied(["40", "other=1"]) == 40


@pytest.mark.parametrize("text", ["", "x", "m=", "0", "-1", "nan", "inf", "m=1e12"])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="write milliseconds above 0, as 50 or NAME=50"):
        parse_objectives([text])


def test_an_objective_is_given_once() -> None:
    with pytest.raises(InvalidArgumentError, match="given twice for m"):
        parse_objectives(["m=1", "m=2"])
