from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from erg_server.client.answer import values
from erg_server.client.json_inputs import parse_inputs, read_inputs
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor
from hypothesis import given
from hypothesis import strategies as st


def entry(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]} | changes


def one(**changes: Any) -> Tensor:
    (tensor,) = parse_inputs({"inputs": [entry(**changes)]})
    return tensor


@pytest.mark.parametrize(
    ("datatype", "data", "held"),
    [
        ("FP32", [1, 2.5], [1, 2.5]),
        ("FP16", [1, -0.5], [1, -0.5]),
        ("BF16", [1, 2.5], [1, 2.5]),
        ("INT64", [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        ("UINT8", [0, 255], [0, 255]),
        ("BOOL", [True, False], [True, False]),
        ("BYTES", ["", "模型"], [b"", "模型".encode()]),
    ],
)
def test_values_of_each_kind_are_taken(datatype: str, data: list[Any], held: list[Any]) -> None:
    assert values(one(datatype=datatype, data=data)).tolist() == held


def test_nested_data_is_flat_data() -> None:
    nested = one(shape=[2, 1, 2], data=[[[1, 2]], [[3, 4]]])
    assert bytes(nested.data) == bytes(one(shape=[2, 1, 2], data=[1, 2, 3, 4]).data)
    assert one(shape=[0, 3], data=[]).shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"datatype": "INT8", "data": [1, 128]}, "input 'x': a value is out of INT8's range"),
        ({"datatype": "UINT8", "data": [1, -1]}, "out of UINT8's range"),
        ({"data": [1, 1e300]}, "out of FP32's range"),
        ({"data": [1, 10**400]}, "out of FP32's range"),
        ({"datatype": "FP16", "data": [1, 1e6]}, "out of FP16's range"),
        ({"datatype": "BF16", "data": [1, 1e300]}, "out of BF16's range"),
        ({"datatype": "INT32", "data": [1, 1.5]}, "takes whole numbers, not 1.5"),
        ({"datatype": "INT32", "data": [1, True]}, "takes whole numbers, not true"),
        ({"datatype": "BOOL", "data": [1, 0]}, "takes true or false, not 1"),
        ({"datatype": "BYTES", "data": ["a", 1]}, "takes strings, not 1"),
        ({"data": ["1", "2"]}, 'takes numbers, not "1"'),
        ({"data": [1, None]}, "takes numbers, not null"),
        ({"data": [1, {}]}, "takes numbers, not {}"),
        ({"data": [1]}, r"of shape \[2\] has 2 values, and data has 1"),
        ({"data": [[1], 2]}, "mixes lists and values"),
        ({"data": 1}, "data is a list"),
        ({"shape": [-1]}, "shape is a list of sizes"),
        ({"shape": [True]}, "shape is a list of sizes"),
        ({"shape": 2}, "shape is a list of sizes"),
        ({"datatype": 1}, "datatype is a string"),
        ({"datatype": "FP8"}, "unknown datatype 'FP8'"),
        ({"name": 1}, "an input has name, datatype, shape, data"),
        ({"parameters": {}}, "and nothing else"),
    ],
)
def test_what_is_wrong_is_told_with_its_input(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        one(**changes)


@pytest.mark.parametrize("document", [None, [], {}, {"inputs": {}}, {"inputs": [], "id": "1"}, {"inputs": [1]}])
def test_another_document_is_told_with_the_form(document: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"name.*datatype.*shape.*data"):
        parse_inputs(document)


def test_an_input_stated_twice_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="stated twice"):
        parse_inputs({"inputs": [entry(), entry()]})


@pytest.mark.parametrize(
    ("content", "told"), [(b"{", "not JSON"), (b"\xff", "not JSON"), (b"[" * 200_000, "not JSON"), (b"[]", "it takes")]
)
def test_a_file_is_named_with_what_is_wrong_in_it(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "request.json"
    path.write_bytes(content)
    with pytest.raises(InvalidArgumentError, match=rf"--json {path}: .*{told}"):
        read_inputs(path)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"--json /no/such: No such file"):
        read_inputs(Path("/no/such"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
LIKELY = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3) | JSON,
        "datatype": st.sampled_from(["FP32", "FP16", "BF16", "INT8", "UINT64", "BOOL", "BYTES", "FP8"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": st.lists(st.integers() | st.floats() | st.booleans() | st.text(max_size=2), max_size=6) | JSON,
    }
)


@given(JSON | st.fixed_dictionaries({"inputs": st.lists(LIKELY, max_size=2)}))
def test_any_document_is_inputs_or_told_what_is_wrong(document: object) -> None:
    try:
        tensors = parse_inputs(json.loads(json.dumps(document)))
    except InvalidArgumentError:
        return
    for tensor in tensors:
        assert values(tensor).shape == tensor.shape
