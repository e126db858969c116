"""Tensors, datatypes and serialised strings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from erg_server.datatype import DATATYPES, DataType
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor, count_bytes_elements, datatype_of, iter_bytes_elements, pack_bytes_elements
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(st.data(), st.sampled_from([kind for kind in DataType if kind is not DataType.BYTES]))
def test_an_array_comes_back_as_it_went(data: st.DataObject, kind: DataType) -> None:
    array = data.draw(hnp.arrays(kind.numpy, SHAPES))
    tensor = Tensor.from_numpy("x", array, kind)
    assert (tensor.name, tensor.datatype, tensor.shape) == ("x", kind, array.shape)
    assert len(tensor.data) == array.size * kind.itemsize
    assert bytes(tensor.data) == array.tobytes()
    assert tensor.numpy().tobytes() == array.tobytes()
    assert tensor.numpy().shape == array.shape


@given(st.data())
def test_strings_come_back_as_they_went(data: st.DataObject) -> None:
    array = np.empty(data.draw(SHAPES), object)
    array[...] = b""
    for index in np.ndindex(array.shape):
        array[index] = data.draw(st.binary(max_size=5))
    tensor = Tensor.from_numpy("x", array)
    assert tensor.datatype is DataType.BYTES
    assert tensor.numpy().tolist() == array.tolist()
    assert tensor.numpy().shape == array.shape


def test_arrays_of_other_layouts_are_made_contiguous_and_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    tensor = Tensor.from_numpy("x", array)
    assert (tensor.datatype, tensor.shape) == (DataType.INT32, (3, 2))
    assert bytes(tensor.data) == np.array([[0, 3], [1, 4], [2, 5]], "<i4").tobytes()


def test_a_view_of_raw_data_copies_nothing() -> None:
    data = bytearray(8)
    array = Tensor("x", DataType.FP32, (2,), data).numpy()
    data[:4] = np.float32(1.5).tobytes()
    assert array[0] == 1.5


@given(st.lists(st.binary(max_size=20)))
def test_packed_strings_are_counted_and_walked(elements: list[bytes]) -> None:
    packed = pack_bytes_elements(elements)
    assert list(iter_bytes_elements(packed)) == elements
    assert count_bytes_elements(memoryview(packed)) == len(elements)


def outcome(walk: Callable[[bytes], object], data: bytes) -> object:
    try:
        return walk(data)
    except InvalidArgumentError as error:
        return error.message


@given(st.binary(max_size=40))
def test_counting_and_walking_agree_on_any_bytes(data: bytes) -> None:
    walked = outcome(lambda raw: list(iter_bytes_elements(raw)), data)
    counted = outcome(count_bytes_elements, data)
    if isinstance(walked, list):
        assert counted == len(walked)
        assert pack_bytes_elements(walked) == data
    else:
        assert counted == walked


def test_text_is_packed_as_utf8() -> None:
    assert pack_bytes_elements(["ö", b"\xff"]) == b"\2\0\0\0\xc3\xb6\1\0\0\0\xff"


def test_datatypes_are_named_numbered_and_sized_as_the_protocol_says() -> None:
    assert [DATATYPES[kind.wire_id] for kind in DataType] == list(DataType)
    sizes = {kind.value: kind.itemsize for kind in DataType}
    assert sizes == {
        "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
        "FP16": 2, "FP32": 4, "FP64": 8, "BYTES": 0, "BF16": 2,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["", "fp32", "FP8", "STRING", "TYPE_FP32"])
def test_an_unknown_datatype_is_told_what_there_is(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"unknown datatype '{name}'; the protocol has BOOL, .*BF16"):
        DataType.parse(name)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("<f4", DataType.FP32), (">f4", DataType.FP32), ("O", DataType.BYTES), ("S3", DataType.BYTES),
     ("?", DataType.BOOL), ("u2", DataType.UINT16)],
)  # fmt: skip
def test_numpys_dtypes_have_their_datatype(dtype: str, kind: DataType) -> None:
    assert datatype_of(np.dtype(dtype)) is kind


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "V4", "f16"])
def test_a_dtype_that_the_protocol_lacks_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no datatype for numpy's"):
        datatype_of(np.dtype(dtype))
