"""What a model takes, and how a request that is something else is told."""

from __future__ import annotations

import pytest
from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.models.signature import Signature
from erg_server.request import InferenceRequest, RequestedOutput
from erg_server.tensor import Tensor

from tests.server.scheduling.builders import model_spec

PLAIN = """
name: "m" backend: "identity" max_batch_size: 4
input { name: "a" data_type: TYPE_FP32 dims: [ 2, -1 ] }
input { name: "b" data_type: TYPE_INT64 dims: [ 1 ] }
input { name: "maybe" data_type: TYPE_UINT8 dims: [ 1 ] optional: true }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "z" data_type: TYPE_FP32 dims: [ 2 ] }
"""
UNBATCHED = """
name: "m" backend: "identity"
input { name: "a" data_type: TYPE_FP32 dims: [ 3 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
"""
PADDED = """
name: "m" backend: "identity" max_batch_size: 4
input { name: "ids" data_type: TYPE_INT64 dims: [ -1 ] }
input { name: "types" data_type: TYPE_INT64 dims: [ -1 ] }
input { name: "mask" data_type: TYPE_INT64 dims: [ -1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
erg { padding { input { name: "ids" axis: 1 } input { name: "types" axis: 1 }
                input { name: "mask" axis: 1 mask: true } } }
"""


def tensor(name: str, shape: tuple[int, ...], datatype: DataType = DataType.FP32) -> Tensor:
    # A signature looks at names, datatypes and shapes; the codec has checked the bytes.
    return Tensor(name, datatype, shape, b"")


def check(config: str, *inputs: Tensor, outputs: tuple[str, ...] = ()) -> int:
    request = InferenceRequest(
        model_name="m", inputs=list(inputs), outputs=tuple(map(RequestedOutput, outputs)), arrival_ns=0
    )
    return Signature(model_spec(config)).check(request)


def a(*shape: int) -> Tensor:
    return tensor("a", shape or (1, 2, 5))


def b(rows: int = 1) -> Tensor:
    return tensor("b", (rows, 1), DataType.INT64)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_fitting_request_has_as_many_rows_as_its_first_axis(rows: int) -> None:
    assert check(PLAIN, a(rows, 2, 7), b(rows), outputs=("z", "y")) == rows


def test_inputs_may_come_in_any_order_and_an_optional_one_may_come() -> None:
    assert check(PLAIN, tensor("maybe", (2, 1), DataType.UINT8), b(2), a(2, 2, 1)) == 2


def test_a_dynamic_axis_may_be_empty() -> None:
    assert check(PLAIN, a(1, 2, 0), b()) == 1


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "input 'a' is missing; no input came"),
        ((b(),), "input 'a' is missing; 'b' came"),
        ((a(), b(), tensor("c", (1,))), "no input 'c'; it has 'a', 'b', 'maybe'"),
        ((a(), b(), b()), "input 'b' came twice"),
        ((tensor("a", (1, 2, 5), DataType.FP64), b()), "input 'a' takes FP32, and FP64 came"),
        ((a(1, 3, 5), b()), r"input 'a' takes shape \[batch, 2, -1\], and \[1, 3, 5\] came"),
        ((a(2, 5), b()), r"takes shape \[batch, 2, -1\], and \[2, 5\]"),
        ((a(1, 2, 5, 1), b()), r"takes shape \[batch, 2, -1\], and \[1, 2, 5, 1\]"),
        ((tensor("a", ()), b()), r"takes shape \[batch, 2, -1\], and \[\]"),
        ((a(2, 2, 5), b(3)), "input 'b' has 3 rows where 'a' has 2"),
        ((a(5, 2, 5), b(5)), r"input 'a' has 5 rows; a request may have 1 to 4 \(max_batch_size\)"),
        ((a(0, 2, 5), b(0)), "input 'a' has 0 rows"),
    ],
)
def test_what_does_not_fit_is_named_with_what_came_and_what_was_expected(
    inputs: tuple[Tensor, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"model 'm': .*{message}"):
        check(PLAIN, *inputs)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [(("w",), "no output 'w'; it has 'y', 'z'"), (("y", "z", "y"), "output 'y' is asked for twice")],
)
def test_outputs_must_exist_and_be_asked_for_once(outputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        check(PLAIN, a(), b(), outputs=outputs)


def test_a_model_without_batching_takes_exactly_its_shape_as_one_row() -> None:
    assert check(UNBATCHED, a(3)) == 1
    with pytest.raises(InvalidArgumentError, match=r"takes shape \[3\], and \[1, 3\] came"):
        check(UNBATCHED, a(1, 3))


def test_a_mask_may_be_left_to_the_server() -> None:
    ids, types = (tensor(name, (2, 7), DataType.INT64) for name in ("ids", "types"))
    assert check(PADDED, ids, types) == 2
    assert check(PADDED, ids, types, tensor("mask", (2, 7), DataType.INT64)) == 2
    with pytest.raises(InvalidArgumentError, match="'types' is missing"):
        check(PADDED, ids)


def test_inputs_padded_together_must_have_one_length_in_a_request() -> None:
    ids, types = tensor("ids", (1, 7), DataType.INT64), tensor("types", (1, 8), DataType.INT64)
    with pytest.raises(InvalidArgumentError, match="one length in a request; came 'ids' 7, 'types' 8"):
        check(PADDED, ids, types)
