from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from erg_server.planning.load_file import read_load
from erg_server.planning.load_problem import MAX_TOLD, LoadFileError
from erg_server.planning.trace_file import parse_trace
from erg_server.planning.traffic import RecordedArrivals
from hypothesis import given
from hypothesis import strategies as st

PATH = Path("trace.csv")
REQUESTS = st.lists(
    st.tuples(st.floats(-1e9, 1e9), st.sampled_from(["a", "b.c", "d-1"]), st.integers(1, 64)), min_size=1, max_size=20
)


@given(REQUESTS, st.permutations(["time_s", "model", "rows"]))
def test_what_is_recorded_is_read(requests: list[tuple[float, str, int]], columns: list[str]) -> None:
    lines = [",".join(columns)]
    for at_s, name, rows in requests:
        cells = {"time_s": repr(at_s), "model": name, "rows": str(rows)}
        lines.append(",".join(cells[column] for column in columns))
    load = parse_trace("\n".join(lines), PATH)
    first_s = min(at_s for at_s, *_ in requests)
    assert load.span_s == max(1.0, max(at_s for at_s, *_ in requests) - first_s)
    read = {}
    for each in load.models:
        assert isinstance(each.arrivals, RecordedArrivals)
        read[each.name] = list(zip(each.arrivals.times_s, each.arrivals.rows, strict=True))
    expected: dict[str, list[tuple[float, int]]] = {}
    for at_s, name, rows in sorted(requests, key=lambda request: request[0]):
        expected.setdefault(name, []).append((at_s - first_s, rows))
    assert read == expected


def test_rows_are_one_where_there_is_no_such_column() -> None:
    (only,) = parse_trace("time_s,model\n5,m\n\n7,m\n", PATH).models
    assert only.arrivals == RecordedArrivals(times_s=(0.0, 2.0), rows=(1, 1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "trace.csv: has no requests; the first line is time_s,model"),
        ("time_s,model\n", "trace.csv: has no requests"),
        ("time_s,modle\n", "trace.csv:1: 'modle' is no column of a trace; did you mean 'model'?"),
        ("time_s\n1\n", "trace.csv:1: model: is missing"),
        ("time_s,model,model\n", "trace.csv:1: model: is there twice"),
        ("time_s,model\n1,m\nsoon,m\n", "trace.csv:3: time_s: cannot be 'soon'; write seconds as a number"),
        ("time_s,model\nnan,m\n", "trace.csv:2: time_s: cannot be 'nan'"),
        ("time_s,model\n1,\n", "trace.csv:2: model: is empty"),
        ("time_s,model\n1,m,2\n", "trace.csv:2: has 3 cells; write one for each of time_s,model"),
        ("time_s,model,rows\n1,m,0\n", "trace.csv:2: rows: cannot be '0'; write a whole number from 1"),
        ("time_s,model,rows\n1,m,²\n", "trace.csv:2: rows: cannot be '²'"),
    ],
)
def test_a_fault_is_told_with_its_line_column_and_fix(text: str, told: str) -> None:
    with pytest.raises(LoadFileError) as caught:
        parse_trace(text, PATH)
    assert told in caught.value.message


def test_a_column_that_is_always_wrong_is_not_told_for_every_line() -> None:
    with pytest.raises(LoadFileError) as caught:
        parse_trace("time_s,model\n" + "x,m\n" * 1000, PATH)
    assert len(caught.value.problems) == MAX_TOLD


@given(st.text(max_size=200))
def test_whatever_the_text_is_the_error_is_a_typed_one(text: str) -> None:
    with contextlib.suppress(LoadFileError):
        parse_trace(text, PATH)


def test_the_name_of_a_load_file_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "load.CSV").write_bytes("\ufefftime_s,model\n1,m\n".encode())
    (tmp_path / "load.toml").write_text("[models.m]\nrate_per_s = 1\n")
    assert read_load(tmp_path / "load.CSV").span_s == 1.0
    assert read_load(tmp_path / "load.toml").span_s is None


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("load.json", b"{}", "is neither .toml nor .csv; name it rates.toml"),
        ("load.toml", b"\xff", "is not UTF-8"),
        ("absent.csv", None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, data: bytes | None, told: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(LoadFileError) as caught:
        read_load(tmp_path / name)
    assert f"{tmp_path / name}: " in caught.value.message
    assert told in caught.value.message
