"""The top classes of an output, as "value:index:label"."""

from __future__ import annotations

import numpy as np
import pytest
from erg_server.dataplane.classification import classify
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

NUMBERS = [kind for kind in DataType if kind is not DataType.BYTES]


def classes(
    array: np.ndarray, count: int, labels: tuple[str, ...] = (), *, batched: bool = True, kind: DataType | None = None
) -> list[list[str]]:
    answer = classify(Tensor.from_numpy("y", array, kind), count, labels, batched=batched)
    assert (answer.name, answer.datatype) == ("y", DataType.BYTES)
    rows = answer.numpy() if batched else answer.numpy()[None]
    return [[item.decode() for item in row] for row in rows.tolist()]


def test_the_highest_come_first_with_value_index_and_label() -> None:
    scores = np.array([[0.25, 0.5, -1.0], [3, 2, 1]], np.float32)
    assert classes(scores, 2, ("cat", "dog", "cow")) == [
        ["0.500000:1:dog", "0.250000:0:cat"],
        ["3.000000:0:cat", "2.000000:1:dog"],
    ]


def test_ties_go_to_the_lower_index() -> None:
    for array in (np.array([[1.0, 2.0, 2.0, 1.0]]), np.array([[1, 2, 2, 1]])):
        assert [int(item.split(":")[1]) for item in classes(array, 4)[0]] == [1, 2, 0, 3]


def test_more_classes_than_there_are_gives_all_and_missing_labels_are_left_out() -> None:
    assert classes(np.array([[1.0, 2.0]]), 1 << 40, ("only",)) == [["2.000000:1", "1.000000:0:only"]]


def test_a_model_without_batching_answers_one_row() -> None:
    assert classes(np.array([1.0, 3.0, 2.0]), 2, batched=False) == [["3.000000:1", "2.000000:2"]]


def test_a_row_is_everything_behind_the_batch_axis() -> None:
    array = np.arange(8, dtype=np.float64).reshape(2, 2, 2)
    assert classes(array, 1) == [["3.000000:3"], ["7.000000:3"]]


def test_bf16_is_compared_and_told_by_its_value() -> None:
    bits = np.array([[0xBF80, 0x3F80, 0x4000]], np.uint16)  # -1, 1, 2
    assert classes(bits, 3, kind=DataType.BF16) == [["2.000000:2", "1.000000:1", "-1.000000:0"]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[False, True]]), ["1:1", "0:0"]),
        (np.array([[-(2**63), 2**53 + 1, 2**53]], np.int64), [f"{2**53 + 1}:1", f"{2**53}:2", f"{-(2**63)}:0"]),
        (np.array([[0, 2**64 - 1]], np.uint64), [f"{2**64 - 1}:1", "0:0"]),
        (np.array([[1.5, -2.0]], np.float16), ["1.500000:0", "-2.000000:1"]),
    ],
    ids=["bool", "int64", "uint64", "fp16"],
)
def test_values_of_every_kind_are_told_exactly(array: np.ndarray, expected: list[str]) -> None:
    assert classes(array, 3) == [expected]


def test_nan_comes_last() -> None:
    assert [item.split(":")[1] for item in classes(np.array([[np.nan, 1.0, 2.0]]), 3)[0]] == ["2", "1", "0"]


def test_an_empty_row_has_no_classes() -> None:
    answer = classify(Tensor.from_numpy("y", np.zeros((2, 0), np.float32)), 3, (), batched=True)
    assert (answer.shape, bytes(answer.data)) == ((2, 0), b"")


def test_strings_have_no_top_classes() -> None:
    with pytest.raises(InvalidArgumentError, match="output 'y' holds strings"):
        classes(np.array([[b"a"]], object), 1)


@given(st.data(), st.sampled_from(NUMBERS), st.integers(1, 6), st.booleans())
def test_the_order_is_that_of_the_values(data: st.DataObject, kind: DataType, count: int, batched: bool) -> None:
    array = data.draw(hnp.arrays(kind.numpy, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)))
    answer = classify(Tensor.from_numpy("y", array, kind), count, (), batched=batched)
    values = (array.astype(np.uint32) << 16).view(np.float32) if kind is DataType.BF16 else array
    rows = values.reshape(len(values), -1) if batched else values.reshape(1, -1)
    assert answer.shape == ((len(rows),) if batched else ()) + (min(count, rows.shape[1]),)
    for row, texts in zip(rows.tolist(), answer.numpy().reshape(len(rows), -1).tolist(), strict=True):
        numbers = [row[int(text.decode().split(":")[1])] for text in texts]
        real = [value for value in numbers if value == value]  # noqa: PLR0124 (NaN)
        assert real == sorted((value for value in row if value == value), reverse=True)[: len(real)]  # noqa: PLR0124
