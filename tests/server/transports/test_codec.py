"""Tensors through the codec: what comes in raw or typed is what a model gets, and nothing else is let in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from erg_server.datatype import DataType
from erg_server.errors import ErgError, InvalidArgumentError
from erg_server.pb import inference_pb2 as pb
from erg_server.request import InferenceResponse
from erg_server.tensor import Tensor, pack_bytes_elements
from erg_server.transports.codec import MAX_DIMENSIONS, MAX_TENSORS, decode_request, encode_response
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.server.transports.builders import FakeRegions, add_input, decode, infer_message

FIXED = [kind for kind in DataType if kind is not DataType.BYTES]
TYPED = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
}


@st.composite
def arrays(draw: st.DrawFn, kinds: Sequence[DataType]) -> tuple[DataType, np.ndarray]:
    kind = draw(st.sampled_from(kinds))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    return kind, draw(hnp.arrays(kind.numpy, shape))


def bytes_arrays() -> st.SearchStrategy[list[bytes]]:
    return st.lists(st.binary(max_size=9), max_size=6)


@given(arrays(FIXED))
def test_every_fixed_size_datatype_comes_through_raw(drawn: tuple[DataType, np.ndarray]) -> None:
    kind, array = drawn
    message = infer_message(array.tobytes())
    add_input(message, "x", kind.value, list(array.shape))
    tensor = decode(message).inputs[0]
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", kind, array.shape)
    assert tensor.numpy().dtype == kind.numpy
    assert tensor.numpy().tobytes() == array.tobytes()


@given(arrays(list(TYPED)))
def test_typed_contents_become_the_same_bytes_as_raw_ones(drawn: tuple[DataType, np.ndarray]) -> None:
    kind, array = drawn
    message = infer_message()
    add_input(message, "x", kind.value, list(array.shape), **{TYPED[kind]: array.ravel().tolist()})
    tensor = decode(message).inputs[0]
    np.testing.assert_array_equal(tensor.numpy(), array)


@given(bytes_arrays(), st.booleans())
def test_strings_come_through_raw_and_typed(elements: list[bytes], typed: bool) -> None:
    message = infer_message() if typed else infer_message(pack_bytes_elements(elements))
    add_input(message, "x", "BYTES", [len(elements)], **({"bytes_contents": elements} if typed else {}))
    tensor = decode(message).inputs[0]
    assert tensor.numpy().tolist() == elements


@given(arrays(FIXED))
def test_an_answer_decodes_to_the_tensors_it_was_made_of(drawn: tuple[DataType, np.ndarray]) -> None:
    kind, array = drawn
    tensor = Tensor.from_numpy("y", array, kind)
    response = InferenceResponse(model_name="m", model_version="3", id="i", outputs=[tensor])
    answer = pb.ModelInferResponse.FromString(encode_response(response, (), FakeRegions()).SerializeToString())
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "3", "i")
    (output,) = answer.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("y", kind.value, array.shape)
    assert list(answer.raw_output_contents) == [array.tobytes()]
    assert not output.HasField("contents")


def test_an_answers_parameters_keep_their_kinds() -> None:
    parameters: dict[str, bool | int | float | str] = {"b": True, "i": 3, "d": 1.5, "s": "text"}
    response = InferenceResponse(model_name="m", model_version="1", id="", outputs=[], parameters=parameters)
    answer = encode_response(response, (), FakeRegions())
    told = {name: value.WhichOneof("parameter_choice") for name, value in answer.parameters.items()}
    assert told == {"b": "bool_param", "i": "int64_param", "d": "double_param", "s": "string_param"}


@pytest.mark.parametrize("kind", ["FP16", "BF16"])
def test_half_floats_come_raw_only(kind: str) -> None:
    message = infer_message()
    add_input(message, "x", kind, [1], fp32_contents=[1.0])
    with pytest.raises(InvalidArgumentError, match=f"input 'x': {kind} comes in raw_input_contents only"):
        decode(message)


@pytest.mark.parametrize(
    ("kind", "field", "values"),
    [
        ("INT8", "int_contents", [128]),
        ("INT16", "int_contents", [-32769]),
        ("UINT8", "uint_contents", [256]),
        ("UINT16", "uint_contents", [65536]),
    ],
)
def test_a_typed_value_out_of_range_is_refused_and_not_wrapped(kind: str, field: str, values: list[int]) -> None:
    message = infer_message()
    add_input(message, "x", kind, [1], **{field: values})
    with pytest.raises(InvalidArgumentError, match=f"input 'x'.*{kind}'s range"):
        decode(message)


def test_contents_of_another_datatype_are_named() -> None:
    message = infer_message()
    add_input(message, "x", "FP32", [1], fp64_contents=[1.0], int_contents=[1])
    with pytest.raises(InvalidArgumentError, match="takes fp32_contents, and fp64_contents, int_contents came"):
        decode(message)


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        ([2], b"\1\0\0\0a", "needs 2 strings, and 1 came"),
        ([1], b"\1\0\0", "ends inside an element's length, 3 bytes from its end"),
        ([1], b"\5\0\0\0abc", "claims 5 bytes where 3 are left"),
        ([1], b"\xff\xff\xff\xff", "claims 4294967295 bytes where 0 are left"),
        ([0], b"\0\0\0\0", "needs 0 strings, and 1 came"),
    ],
)
def test_malformed_strings_are_refused_by_name(shape: list[int], data: bytes, message: str) -> None:
    request = infer_message(data)
    add_input(request, "x", "BYTES", shape)
    with pytest.raises(InvalidArgumentError, match=f"input 'x'.*{message}"):
        decode(request)


def test_a_wrong_byte_count_names_the_input_what_came_and_what_was_expected() -> None:
    message = infer_message(bytes(8), bytes(7))
    add_input(message, "fits", "FP32", [2])
    add_input(message, "short", "FP32", [2, 1])
    with pytest.raises(
        InvalidArgumentError, match=r"input 'short' of shape \[2, 1\] and datatype FP32 needs 8 bytes, and 7"
    ):
        decode(message)


@pytest.mark.parametrize("shape", [[-1], [2, -3], [1 << 31], [1 << 62, 4], [-(1 << 63)]])
def test_an_impossible_axis_is_refused(shape: list[int]) -> None:
    message = infer_message(b"")
    add_input(message, "x", "FP32", shape)
    with pytest.raises(InvalidArgumentError, match=r"input 'x' has shape .* is not the size of an axis"):
        decode(message)


def test_a_shape_whose_product_overflows_64_bits_is_a_wrong_byte_count() -> None:
    message = infer_message(b"")
    add_input(message, "x", "UINT8", [(1 << 31) - 1] * 4)
    with pytest.raises(InvalidArgumentError, match=f"needs {((1 << 31) - 1) ** 4} bytes, and 0 came"):
        decode(message)


def test_an_empty_tensor_whose_other_axes_overflow_is_refused() -> None:
    message = infer_message(b"")
    add_input(message, "x", "FP32", [0] + [(1 << 31) - 1] * 3)
    with pytest.raises(InvalidArgumentError, match=r"input 'x' has shape .*: its axes are too large"):
        decode(message)


def test_a_shape_of_many_axes_is_refused_before_it_is_multiplied_or_told() -> None:
    message = infer_message(b"")
    add_input(message, "x", "UINT8", [(1 << 31) - 1] * 200_000)
    with pytest.raises(InvalidArgumentError, match=f"200000 axes; a tensor may have {MAX_DIMENSIONS}"):
        decode(message)


def test_raw_and_typed_contents_do_not_mix() -> None:
    message = infer_message(bytes(4))
    add_input(message, "x", "FP32", [1], fp32_contents=[1.0])
    with pytest.raises(InvalidArgumentError, match="'x' has contents beside raw_input_contents"):
        decode(message)


@pytest.mark.parametrize(
    ("raw", "inputs", "message"),
    [(1, 2, "input 'x1' has no entry in raw_input_contents, which holds 1"), (2, 1, "holds 2 entries for 1 inputs")],
)
def test_raw_entries_and_inputs_must_be_as_many(raw: int, inputs: int, message: str) -> None:
    request = infer_message(*[bytes(4)] * raw)
    for number in range(inputs):
        add_input(request, f"x{number}", "FP32", [1])
    with pytest.raises(InvalidArgumentError, match=message):
        decode(request)


def test_a_flood_of_tensors_is_refused() -> None:
    message = infer_message()
    for _ in range(MAX_TENSORS + 1):
        message.inputs.add()
    with pytest.raises(InvalidArgumentError, match=f"{MAX_TENSORS} inputs"):
        decode(message)


def test_an_unknown_datatype_is_told_what_there_is() -> None:
    message = infer_message(b"")
    add_input(message, "x", "FP8", [0])
    with pytest.raises(InvalidArgumentError, match="unknown datatype 'FP8'; the protocol has BOOL, "):
        decode(message)


@st.composite
def wild_messages(draw: st.DrawFn) -> bytes:
    """Well-formed protobuf with fields that contradict each other."""
    message = infer_message(*draw(st.lists(st.binary(max_size=24), max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 3), max_size=4))
        field = draw(st.sampled_from([*sorted(set(TYPED.values())), "bytes_contents"]))
        values: list[Any] = draw(st.lists(st.binary() if field == "bytes_contents" else st.integers(0, 1), max_size=3))
        kind = draw(st.sampled_from([item.value for item in DataType]) | st.text(max_size=4))
        add_input(message, draw(st.text(max_size=3)), kind, shape, **({field: values} if values else {}))
        if draw(st.booleans()):
            parameter = message.inputs[-1].parameters[draw(st.sampled_from(["shared_memory_region", "other"]))]
            parameter.string_param = "r"
    for name in draw(st.lists(st.sampled_from(["priority", "timeout", "x"]), max_size=2)):
        message.parameters[name].double_param = 1.5
    return message.SerializeToString()


@given(st.binary(max_size=200) | wild_messages())
@example(b"")
def test_whatever_bytes_come_only_typed_errors_leave(data: bytes) -> None:
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    try:
        request = decode_request(message, arrival_ns=0, deadline_ns=None, regions=FakeRegions(r=bytearray(8)))
    except ErgError:
        return
    for tensor in request.inputs:
        assert tensor.numpy().shape == tensor.shape
