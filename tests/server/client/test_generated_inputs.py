from __future__ import annotations

import numpy as np
import pytest
from erg_server.client.answer import values
from erg_server.client.generated_inputs import Declared, generate, parse_shapes
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor


def one(datatype: str, *shape: int, stated: tuple[int, ...] | None = None) -> Tensor:
    shapes = {} if stated is None else {"x": stated}
    (tensor,) = generate([Declared(name="x", datatype=datatype, shape=shape)], shapes)
    return tensor


@pytest.mark.parametrize("kind", list(DataType), ids=lambda kind: kind.value)
@pytest.mark.parametrize("shape", [(-1, 3), (2, 2), (), (0, 4)])
def test_every_datatype_and_shape_makes_a_tensor_whose_bytes_fit(kind: DataType, shape: tuple[int, ...]) -> None:
    tensor = one(kind.value, *shape)
    assert tensor.datatype is kind
    assert tensor.shape == tuple(1 if size < 0 else size for size in shape)
    held = values(tensor)
    assert held.shape == tensor.shape
    if kind is DataType.BYTES:
        assert set(held.ravel()) <= {b"erg"}
    elif held.dtype.kind == "f":
        assert ((held >= 0) & (held <= 1)).all()
    else:
        assert (held == 1).all()


def test_made_inputs_are_the_same_each_time_and_not_all_alike() -> None:
    assert bytes(one("FP32", 4).data) == bytes(one("FP32", 4).data)
    assert len(np.unique(values(one("FP32", 64)))) > 60


def test_a_stated_shape_sets_open_axes() -> None:
    assert one("INT64", -1, -1, stated=(2, 128)).shape == (2, 128)


@pytest.mark.parametrize("stated", [(1,), (1, 2, 3), (1, 5)])
def test_a_stated_shape_that_the_metadata_rules_out_is_told(stated: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"--shape: input 'x' is \[-1, 4\], not"):
        one("FP32", -1, 4, stated=stated)


def test_a_shape_for_no_input_is_told_with_those_that_there_are() -> None:
    with pytest.raises(InvalidArgumentError, match="no input 'y'; it has x"):
        generate([Declared(name="x", datatype="FP32", shape=[1])], {"y": (1,)})


@pytest.mark.parametrize("datatype", ["FP32", "BYTES", "UINT8"])
def test_what_no_message_can_carry_is_not_made(datatype: str) -> None:
    with pytest.raises(InvalidArgumentError, match="larger than a gRPC message"):
        one(datatype, 1 << 20, -1, stated=(1 << 20, 1 << 20))


def test_a_datatype_that_the_protocol_lacks_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown datatype 'FP8'"):
        one("FP8", 1)


def test_shapes_are_read_by_name() -> None:
    assert parse_shapes(["a=1,128", "b=", "c=d=3"]) == {"a": (1, 128), "b": (), "c=d": (3,)}


@pytest.mark.parametrize("stated", ["a", "=1", "a=1,", "a=-1", "a=x", "a=1.5", ""])
def test_a_shape_of_another_form_is_told_with_the_right_one(stated: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"NAME=SIZE,SIZE"):
        parse_shapes([stated])


def test_a_shape_stated_twice_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="states 'a' twice"):
        parse_shapes(["a=1", "a=2"])
