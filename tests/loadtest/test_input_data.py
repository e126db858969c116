import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from erg_loadtest import input_data
from erg_loadtest.answers import read_answer
from erg_loadtest.errors import PlanError
from erg_loadtest.input_data import FileScenario
from erg_loadtest.tensors import InputSpec, OutputSpec, Signature
from erg_server.pb import inference_pb2
from hypothesis import given
from hypothesis import strategies as st

from tests.loadtest.narrow import known

PAIR = Signature(
    model="m",
    version="",
    max_batch_size=4,
    inputs=(
        InputSpec(name="a", datatype="FP32", shape=(-1, 2)),
        InputSpec(name="words", datatype="BYTES", shape=(-1, -1), optional=True),
    ),
)


def write_json(path, *entries):
    path.write_text(json.dumps({"data": list(entries)}))
    return path


def requests(path, **options):
    return [
        inference_pb2.ModelInferRequest.FromString(payload.body)
        for payload in FileScenario(path=path, **options).payloads(PAIR)
    ]


def test_json_samples_become_requests_with_a_batch_axis(tmp_path):
    raw = base64.b64encode(np.array([5, 6], dtype="<f4").tobytes()).decode()
    path = write_json(
        tmp_path / "d.json",
        {"a": [1, 2], "words": ["x", "yz"]},
        {"a": {"content": [3, 4], "shape": [2]}},
        {"a": {"b64": raw}},
    )
    first, second, third = requests(path)
    assert list(first.inputs[0].shape) == [1, 2]
    assert list(first.inputs[1].shape) == [1, 2]
    assert first.raw_input_contents[1] == b"\1\0\0\0x\2\0\0\0yz"
    assert np.frombuffer(second.raw_input_contents[0], "<f4").tolist() == [3, 4]
    assert np.frombuffer(third.raw_input_contents[0], "<f4").tolist() == [5, 6]


def test_npz_rows_are_grouped_into_batches(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, a=np.arange(12, dtype=np.float64).reshape(6, 2))
    grouped = requests(path, batch_size=3)
    assert [list(request.inputs[0].shape) for request in grouped] == [[3, 2], [3, 2]]
    assert np.frombuffer(grouped[1].raw_input_contents[0], "<f4").tolist() == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"words": ["x"]}, "lacks a"),
        ({"a": [1, 2], "b": [1]}, "no input 'b'"),
        ({"a": [1, 2, 3]}, "has shape"),
        ({"a": ["x", "y"]}, r"data\[0\]\.a"),
        ({"a": {"content": [1, 2], "shape": [1 << 70]}}, r"data\[0\]\.a"),
        ({"a": [1e39, 0]}, r"data\[0\]\.a: a value is out of FP32's range"),
        ({"a": {"b64": "!"}}, r"data\[0\]\.a"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_by_its_place(tmp_path, entry, message):
    with pytest.raises(PlanError, match=message):
        requests(write_json(tmp_path / "d.json", entry))


def test_arrays_that_do_not_fit_the_model_s_datatype_are_refused_by_name(tmp_path):
    path = tmp_path / "d.npz"
    for values in (np.full((1, 2), 1e39), np.full((1, 2), "x")):
        np.savez(path, a=values)
        with pytest.raises(PlanError, match="array 'a': "):
            requests(path)


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(PlanError, match=r"not an \.npz of plain arrays"):
        requests(path)


@given(cut=st.integers(0, 400), at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_npz_is_requests_or_a_typed_error(tmp_path_factory, cut, at, byte):
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez_compressed(path, a=np.arange(8.0).reshape(4, 2))
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content[: len(content) - cut])
    try:
        found = requests(path)
    except PlanError:
        return
    assert all(len(request.raw_input_contents) == 1 for request in found)


def test_an_array_alone_has_no_input_s_name(tmp_path):
    path = tmp_path / "d.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(PlanError, match="one array without a name"):
        requests(path)


def test_a_document_of_another_form_is_refused(tmp_path):
    path = tmp_path / "d.json"
    path.write_text("[]")
    with pytest.raises(PlanError, match="expected"):
        requests(path)


GOLDEN = replace(PAIR, outputs=(OutputSpec(name="sum", datatype="FP32"), OutputSpec(name="a", datatype="FP32")))


def expected(path, **options):
    return [read_answer(known(payload.expected)) for payload in FileScenario(path=path, **options).payloads(GOLDEN)]


def test_golden_outputs_of_an_npz_are_named_expected_and_batched_like_the_inputs(tmp_path):
    path = tmp_path / "d.npz"
    columns: Any = {"a": np.ones((4, 2)), "expected.sum": np.arange(4.0), "expected.a": np.ones((4, 2))}
    np.savez(path, **columns)
    first, second = expected(path, batch_size=2)
    assert first["sum"].tolist() == [0, 1]
    assert second["sum"].tolist() == [2, 3]
    assert second["a"].shape == (2, 2)


def test_golden_outputs_of_json_are_perf_analyzer_s_validation_data(tmp_path):
    path = tmp_path / "d.json"
    answers = [{"sum": {"content": [3], "shape": []}}, {"sum": {"content": [7], "shape": []}}]
    path.write_text(json.dumps({"data": [{"a": [1, 2]}, {"a": [3, 4]}], "validation_data": answers}))
    assert [one["sum"].tolist() for one in expected(path)] == [[3], [7]]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "0 entries of validation_data to 1 of data"),
        ([{"product": [1]}], "no output 'product'; it has sum, a"),
        ([{"sum": {"b64": "AAAA"}}], r"validation_data\[0\]\.sum: .* needs its 'shape'"),
        ([{"sum": ["x"]}], r"validation_data\[0\]\.sum"),
        ("x", "expected"),
    ],
)
def test_golden_outputs_that_do_not_fit_are_refused(tmp_path, answers, message):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"data": [{"a": [1, 2]}], "validation_data": answers}))
    with pytest.raises(PlanError, match=message):
        expected(path)


def test_data_of_another_kind_is_refused_with_the_kinds_there_are(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("1,2")
    with pytest.raises(PlanError, match=r"\.npz, perf_analyzer's \.json, a \.jsonl of texts or a folder of images"):
        requests(path)


def test_more_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(input_data, "_MAX_PREPARED_BYTES", 100)
    path = tmp_path / "d.npz"
    np.savez(path, a=np.zeros((50, 2)))
    with pytest.raises(PlanError, match="give less of it"):
        requests(path)


def test_samples_of_other_shapes_do_not_share_a_batch(tmp_path):
    path = write_json(tmp_path / "d.json", {"a": [1, 2], "words": ["x"]}, {"a": [1, 2], "words": ["x", "y"]})
    with pytest.raises(PlanError, match="use batch size 1"):
        requests(path, batch_size=2)
    assert len(requests(path)) == 2


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "words", "b64", "shape"]), inner),
)


@given(st.fixed_dictionaries({"data": st.lists(st.dictionaries(st.sampled_from(["a", "words"]), _JSON), max_size=2)}))
def test_any_json_is_requests_or_a_typed_error(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("data") / "d.json"
    path.write_text(json.dumps(document))
    try:
        found = requests(path)
    except PlanError:
        return
    assert all(request.inputs[0].shape[0] == 1 for request in found)
