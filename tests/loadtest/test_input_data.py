import base64
import json

import numpy as np
import pytest
from erg_loadtest.errors import PlanError
from erg_loadtest.input_data import payloads_from_file
from erg_loadtest.tensors import InputSpec, Signature
from erg_server.pb import inference_pb2

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
        for payload in payloads_from_file(path, PAIR, **options)
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
        ({"a": {"b64": "!"}}, r"data\[0\]\.a"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_by_its_place(tmp_path, entry, message):
    with pytest.raises(PlanError, match=message):
        requests(write_json(tmp_path / "d.json", entry))


def test_pickled_arrays_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(PlanError, match=r"not an \.npz of plain arrays"):
        requests(path)


def test_a_document_of_another_form_is_refused(tmp_path):
    path = tmp_path / "d.json"
    path.write_text("[]")
    with pytest.raises(PlanError, match="expected"):
        requests(path)
