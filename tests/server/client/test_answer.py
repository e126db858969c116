from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from erg_server.client.answer import WrongAnswerError, check_answer, read_answer
from erg_server.client.bfloat16 import to_bits
from erg_server.client.generated_inputs import Declared
from erg_server.datatype import DataType
from erg_server.errors import ErgError, StatusCode
from erg_server.pb import inference_pb2 as pb
from erg_server.tensor import Tensor

Y = Declared(name="y", datatype="FP32", shape=[-1, 2])


def output(array: Any = ((1, 2),), *, name: str = "y", kind: DataType = DataType.FP32) -> Tensor:
    return Tensor.from_numpy(name, np.array(array, kind.numpy), kind)


def message(datatype: str = "FP32", shape: tuple[int, ...] = (1, 2), raw: bytes = bytes(8)) -> pb.ModelInferResponse:
    answer = pb.ModelInferResponse(raw_output_contents=[raw])
    answer.outputs.add(name="y", datatype=datatype, shape=shape)
    return answer


def test_an_answer_as_the_metadata_has_it_is_right_in_any_order_of_its_outputs() -> None:
    check_answer([output()], [Y])
    check_answer([output(np.ones((5, 2)))], [Y])
    z = Declared(name="z", datatype="INT64", shape=[1])
    check_answer([output([1], name="z", kind=DataType.INT64), output()], [Y, z])


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ([], "outputs none came, and the metadata has y"),
        ([output(), output(name="z")], "outputs y, z came"),
        ([output(), output()], "outputs y, y came"),
        ([output(kind=DataType.FP64)], "output 'y' is FP64, and FP32 in the metadata"),
        ([output([1, 2])], r"has shape \[2\], and \[-1, 2\]"),
        ([output([[1, 2, 3]])], r"has shape \[1, 3\], and \[-1, 2\]"),
        ([output([[1, np.nan]])], "1 of 2 values are NaN or infinite"),
        ([output([[np.inf, -np.inf]])], "2 of 2 values"),
    ],
)
def test_what_the_metadata_does_not_say_is_wrong(outputs: list[Tensor], told: str) -> None:
    with pytest.raises(WrongAnswerError, match=told):
        check_answer(outputs, [Y])


@pytest.mark.parametrize("kind", [DataType.FP16, DataType.FP64, DataType.BF16])
def test_values_that_are_not_finite_are_found_in_every_floating_type(kind: DataType) -> None:
    held = np.array([1, np.inf], np.float32)
    tensor = Tensor.from_numpy("y", to_bits(held) if kind is DataType.BF16 else held.astype(kind.numpy), kind)
    with pytest.raises(WrongAnswerError, match="1 of 2 values are NaN"):
        check_answer([tensor], [Declared(name="y", datatype=kind.value, shape=[2])])


def test_a_wrong_answer_is_a_typed_error() -> None:
    assert issubclass(WrongAnswerError, ErgError)
    assert WrongAnswerError("").code is StatusCode.INTERNAL


def test_tensors_are_read_from_raw_contents() -> None:
    (tensor,) = read_answer(message(raw=np.array([3, 4], np.float32).tobytes()))
    assert tensor.numpy().tolist() == [[3, 4]]
    (text,) = read_answer(message("BYTES", (1,), b"\1\0\0\0a"))
    assert text.numpy().tolist() == [b"a"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (message(raw=bytes(7)), r"output 'y' of FP32 \[1, 2\] came with 7 bytes"),
        (message(shape=(-1, -2)), "came with 8 bytes"),
        (message("BYTES", (2,), b"\1\0\0\0a"), "came with 1 strings"),
        (message("BYTES", (1,), b"\x09\0\0\0a"), "claims 9 bytes where 1 are left"),
        (message("FP8"), "unknown datatype 'FP8'"),
        (pb.ModelInferResponse(raw_output_contents=[b""]), "0 outputs came with 1 raw contents"),
    ],
)
def test_bytes_that_are_not_what_their_shape_says_are_wrong(answer: pb.ModelInferResponse, told: str) -> None:
    with pytest.raises(WrongAnswerError, match=told):
        read_answer(answer)
