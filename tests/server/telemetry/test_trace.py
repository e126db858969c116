"""Request traces: which requests, and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from erg_server.errors import InvalidArgumentError
from erg_server.request import Phases
from erg_server.telemetry.trace import MAX_KEPT, Tracer, TraceSettings, parse_settings
from hypothesis import given
from hypothesis import strategies as st

PHASES = Phases(
    arrival_ns=1_000,
    queued_ns=1_100,
    dispatched_ns=2_000,
    completed_ns=9_000,
    compute_input_ns=100,
    compute_infer_ns=5_000,
    compute_output_ns=200,
)


def tracer(tmp_path: Path, **changes: Any) -> Tracer:
    return Tracer(TraceSettings(**{"level": "TIMESTAMPS", "rate": 1, "file": str(tmp_path / "trace.json"), **changes}))


def record(subject: Tracer, model: str = "m", request_id: str = "r", phases: Phases = PHASES) -> None:
    subject.record(model=model, version="1", request_id=request_id, phases=phases)


def ids(path: Path) -> list[str]:
    return [entry["request_id"] for entry in json.loads(path.read_text(encoding="utf-8")) if "request_id" in entry]


def test_nothing_is_traced_until_it_is_turned_on_and_after_it_is_turned_off() -> None:
    subject = Tracer()
    seen = []
    for level in ("OFF", "TIMESTAMPS", "OFF"):
        subject.update({"trace_level": [level], "trace_rate": ["1"]})
        seen.append((subject.enabled, subject.sample("m")))
    assert seen == [(False, False), (True, True), (False, False)]


@given(st.integers(1, 20), st.integers(-1, 10), st.integers(0, 100))
def test_one_of_every_rate_is_traced_until_count_were(rate: int, count: int, requests: int) -> None:
    subject = Tracer(TraceSettings(level="TIMESTAMPS", rate=rate, count=count))
    taken = [subject.sample("m") for _ in range(requests)]
    due = requests // rate
    assert sum(taken) == (due if count < 0 else min(due, count))
    assert all((number + 1) % rate == 0 for number, hit in enumerate(taken) if hit)


def test_models_without_settings_of_their_own_share_one_rate_and_one_count() -> None:
    subject = Tracer(TraceSettings(level="TIMESTAMPS", rate=2, count=3))
    assert [subject.sample("ab"[number % 2]) for number in range(10)] == [False, True] * 3 + [False] * 4


def test_a_models_own_rate_and_count_hold_for_it_alone() -> None:
    subject = Tracer(TraceSettings(level="TIMESTAMPS", rate=1))
    subject.update({"trace_rate": ["3"], "trace_count": ["1"]}, "mine")
    assert [subject.sample("mine") for _ in range(6)] == [False, False, True, False, False, False]
    assert [subject.sample("other") for _ in range(3)] == [True] * 3


def test_a_model_may_be_traced_alone_or_left_out_alone() -> None:
    subject = Tracer()
    subject.update({"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]}, "mine")
    assert subject.enabled
    assert subject.sample("mine")
    assert not subject.sample("other")
    subject.update({"trace_level": ["TIMESTAMPS"], "trace_rate": ["1"]})
    subject.update({"trace_level": ["OFF"]}, "mine")
    assert not subject.sample("mine")
    assert subject.sample("other")


def test_a_cleared_setting_follows_the_global_one_and_that_the_servers_default() -> None:
    subject = Tracer(TraceSettings(rate=50))
    subject.update({"trace_rate": ["7"]})
    subject.update({"trace_rate": ["3"]}, "mine")
    assert subject.settings("mine").rate == 3
    assert subject.update({"trace_rate": []}, "mine").rate == 7
    subject.update({"trace_rate": ["9"]})
    assert subject.settings("mine").rate == 9
    assert subject.update({"trace_rate": []}).rate == 50


def test_a_model_whose_settings_are_cleared_shares_the_global_count_again() -> None:
    subject = Tracer(TraceSettings(level="TIMESTAMPS", rate=1, count=1))
    subject.update({"trace_count": ["5"]}, "mine")
    subject.update({"trace_count": []}, "mine")
    assert [subject.sample("mine"), subject.sample("other")] == [True, False]


def test_new_settings_count_anew() -> None:
    subject = Tracer(TraceSettings(level="TIMESTAMPS", rate=1, count=1))
    assert [subject.sample("m"), subject.sample("m")] == [True, False]
    subject.update({"trace_count": ["2"]})
    assert [subject.sample("m") for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trace_level", "TENSORS"),
        ("trace_rate", "0"),
        ("trace_rate", "often"),
        ("trace_count", "-2"),
        ("log_frequency", "-1"),
        ("trace_mode", "opentelemetry"),
        ("trace_colour", "red"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name_and_changes_nothing(name: str, value: str) -> None:
    subject = Tracer()
    for model in ("", "mine"):
        with pytest.raises(InvalidArgumentError, match=name):
            subject.update({"trace_level": ["TIMESTAMPS"], name: [value]}, model)
        assert subject.settings(model) == TraceSettings()
    assert not subject.enabled


def test_settings_go_over_the_wire_and_back() -> None:
    settings = TraceSettings(level="TIMESTAMPS", rate=5, count=9, log_frequency=2, file="x.json")
    assert TraceSettings(**parse_settings(settings.as_wire())) == settings


def test_a_trace_is_tritons_two_entries_with_ascending_times(tmp_path: Path) -> None:
    subject = tracer(tmp_path)
    record(subject, request_id="abc")
    subject.flush()
    head, times = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))
    assert head == {"id": 1, "model_name": "m", "model_version": 1, "request_id": "abc"}
    assert times["id"] == 1
    stamps = [(stamp["name"], stamp["ns"]) for stamp in times["timestamps"]]
    assert [name for name, _ in stamps] == [
        "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END",
        "COMPUTE_OUTPUT_START", "COMPUTE_END", "REQUEST_END",
    ]  # fmt: skip
    moments = dict(stamps)
    assert (moments["REQUEST_START"], moments["QUEUE_START"], moments["REQUEST_END"]) == (1_000, 1_100, 9_000)
    assert moments["COMPUTE_OUTPUT_START"] - moments["COMPUTE_INPUT_END"] == 5_000
    assert [at for _, at in stamps] == sorted(moments.values())


@given(st.tuples(*[st.integers(0, 10**10)] * 6))
def test_times_ascend_even_where_the_clocks_of_front_and_worker_disagree(steps: tuple[int, ...]) -> None:
    queued, waited, answered, *compute = steps
    phases = Phases(
        arrival_ns=5,
        queued_ns=5 + queued,
        dispatched_ns=5 + queued + waited,
        completed_ns=5 + queued + waited + answered,
        compute_input_ns=compute[0],
        compute_infer_ns=compute[1],
        compute_output_ns=compute[2],
    )
    subject = Tracer(TraceSettings(level="TIMESTAMPS"))
    record(subject, phases=phases)
    (entries,) = subject._traces.values()
    moments = [stamp["ns"] for stamp in entries[1]["timestamps"]]
    assert moments == sorted(moments)


def test_turning_it_off_writes_what_was_kept(tmp_path: Path) -> None:
    subject = tracer(tmp_path)
    record(subject, request_id="a")
    record(subject, request_id="b")
    assert not (tmp_path / "trace.json").exists()
    subject.update({"trace_level": ["OFF"]})
    assert ids(tmp_path / "trace.json") == ["a", "b"]


def test_a_file_written_twice_stays_one_valid_document(tmp_path: Path) -> None:
    subject = tracer(tmp_path)
    for name in ("a", "b"):
        record(subject, request_id=name)
        subject.flush()
    subject.flush()
    assert ids(tmp_path / "trace.json") == ["a", "b"]


def test_a_log_frequency_numbers_the_files_and_the_last_holds_the_rest(tmp_path: Path) -> None:
    subject = tracer(tmp_path, log_frequency=2)
    for name in "abcde":
        record(subject, request_id=name)
    subject.flush()
    assert [ids(tmp_path / f"trace.json.{number}") for number in range(3)] == [["a", "b"], ["c", "d"], ["e"]]


def test_a_log_frequency_that_was_never_reached_still_numbers_its_file(tmp_path: Path) -> None:
    subject = tracer(tmp_path, log_frequency=9)
    record(subject, request_id="a")
    subject.flush()
    assert ids(tmp_path / "trace.json.0") == ["a"]


def test_a_models_own_file_is_its_own(tmp_path: Path) -> None:
    subject = tracer(tmp_path)
    subject.update({"trace_file": [str(tmp_path / "mine.json")]}, "mine")
    record(subject, "mine", "a")
    record(subject, "other", "b")
    subject.flush()
    assert ids(tmp_path / "mine.json") == ["a"]
    assert ids(tmp_path / "trace.json") == ["b"]


def test_a_file_that_cannot_be_written_is_logged_and_serving_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subject = tracer(tmp_path, file=str(tmp_path / "none" / "trace.json"))
    record(subject)
    subject.flush()
    assert "1 traces were not written" in caplog.text
    subject.flush()
    assert caplog.text.count("not written") == 1


def test_a_foreign_file_of_that_name_is_not_overwritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in ("not JSON", '{"an": "object"}'):
        (tmp_path / "trace.json").write_text(content, encoding="utf-8")
        subject = tracer(tmp_path)
        record(subject)
        subject.flush()
        assert (tmp_path / "trace.json").read_text(encoding="utf-8") == content
    assert caplog.text.count("not written") == 2


def test_memory_is_bounded_however_long_tracing_runs(tmp_path: Path) -> None:
    subject = tracer(tmp_path)
    for number in range(25_000):
        record(subject, request_id=str(number))
    assert sum(map(len, subject._traces.values())) <= 2 * MAX_KEPT
    subject.flush()
    assert ids(tmp_path / "trace.json") == [str(number) for number in range(25_000)]
