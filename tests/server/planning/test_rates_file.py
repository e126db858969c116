from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from erg_server.planning.load_problem import LoadFileError
from erg_server.planning.rates_file import parse_rates
from erg_server.planning.traffic import PATTERNS, GeneratedArrivals, ModelTraffic
from hypothesis import given
from hypothesis import strategies as st

PATH = Path("rates.toml")
NAMES = st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,12}", fullmatch=True)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    table: dict[str, Any] = {"rate_per_s": draw(st.floats(0.001, 1e6))}
    if draw(st.booleans()):
        table["arrivals"] = draw(st.sampled_from(PATTERNS))
    if table.get("arrivals") == "bursty" and draw(st.booleans()):
        table["burst_share"] = draw(st.floats(0.01, 0.2))
        table["peak"] = draw(st.floats(0.5, 5))
        table["burst_s"] = draw(st.floats(0.01, 10))
    if draw(st.booleans()):
        table["objective_ms"] = draw(st.integers(1, 10_000))
    if draw(st.booleans()):
        table["rows"] = draw(st.integers(1, 64))
    if draw(st.booleans()):
        table["length"] = draw(st.integers(1, 512))
    return table


def written(models: dict[str, dict[str, Any]]) -> str:
    lines = []
    for name, table in models.items():
        lines += [f"[models.{json.dumps(name)}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines)


@given(st.dictionaries(NAMES, tables(), min_size=1, max_size=4))
def test_what_is_written_is_read(models: dict[str, dict[str, Any]]) -> None:
    load = parse_rates(written(models), PATH)
    assert load.span_s is None
    assert [each.name for each in load.models] == list(models)
    for each, table in zip(load.models, models.values(), strict=True):
        stated = {key: table[key] for key in ("rate_per_s", "rows", "peak", "burst_share", "burst_s") if key in table}
        assert each.arrivals == GeneratedArrivals(pattern=table.get("arrivals", "poisson"), **stated)
        assert each.objective_ns == table.get("objective_ms", 0) * 1_000_000
        assert each.length == table.get("length")


def test_the_place_of_a_model_is_its_line() -> None:
    (only,) = parse_rates("\n\n[models.m]\nrate_per_s = 1\n", PATH).models
    assert only == ModelTraffic(name="m", arrivals=GeneratedArrivals(rate_per_s=1.0), place="rates.toml:3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "rates.toml: names no model; write [models.NAME]"),
        ("[models]", "names no model"),
        ("models = 3", "rates.toml:1: models: is a table of models"),
        ("[model.m]\nrate_per_s = 5", "rates.toml:1: model: is no key of a load file; did you mean 'models'?"),
        ("[models]\nm = 5", "rates.toml:2: models.m: is a table"),
        ("[models.m]", "rates.toml:1: models.m.rate_per_s: is missing"),
        (
            "[models.m]\nrate_s = 5",
            "rates.toml:2: models.m.rate_s: is no key of a model's load; did you mean 'rate_per_s'?",
        ),
        ("[models.m]\nrate_per_s = 0", "rates.toml:2: models.m.rate_per_s: cannot be 0; write a number above 0"),
        ("[models.m]\nrate_per_s = nan", "models.m.rate_per_s: cannot be nan"),
        ("[models.m]\nrate_per_s = inf", "models.m.rate_per_s: cannot be inf"),
        ("[models.m]\nrate_per_s = true", "models.m.rate_per_s: cannot be True"),
        ("[models.m]\nrate_per_s = '5'", "models.m.rate_per_s: cannot be '5'"),
        ("[models.m]\nrate_per_s = [5]", "models.m.rate_per_s: cannot be a list"),
        ("[models.m]\nrate_per_s = 5\nrows = 1.5", "rates.toml:3: models.m.rows: cannot be 1.5; write a whole number"),
        (
            "[models.m]\nrate_per_s = 5\narrivals = 'burst'",
            "models.m.arrivals: cannot be 'burst'; did you mean 'bursty'?",
        ),
        (
            "[models.m]\nrate_per_s = 5\narrivals = 2",
            "models.m.arrivals: cannot be 2; allowed: poisson, constant, bursty",
        ),
        ("[models.m]\nrate_per_s = 5\npeak = 2", "rates.toml:3: models.m.peak: is for bursty arrivals alone"),
        ("[models.m]\nrate_per_s = 5\narrivals = 'bursty'\npeak = 11", "peak times burst_share is 1.1"),
        ("[models.m\nrate_per_s = 5", "rates.toml:1: "),
        ("[models.m]\nrate_per_s = 2020-01-01", "has no place in a configuration"),
    ],
)
def test_a_fault_is_told_with_its_line_key_and_fix(text: str, told: str) -> None:
    with pytest.raises(LoadFileError) as caught:
        parse_rates(text, PATH)
    assert told in caught.value.message


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(LoadFileError) as caught:
        parse_rates("[models.a]\nrate_per_s = -1\nrows = 0\n[models.b]\n", PATH)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4]


@given(st.text(max_size=200))
def test_whatever_the_text_is_the_error_is_a_typed_one(text: str) -> None:
    with contextlib.suppress(LoadFileError):
        parse_rates(text, PATH)
