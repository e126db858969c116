from __future__ import annotations

import numpy as np
from erg_server.client.report import first_values, summary, tensor_lines
from erg_server.datatype import DataType
from erg_server.tensor import Tensor


def tensor(array: object, name: str = "x", kind: DataType | None = None) -> Tensor:
    return Tensor.from_numpy(name, np.array(array), kind)


def test_tensors_are_lines_in_columns() -> None:
    lines = tensor_lines([("input", tensor(np.array([[1, 0.5]], np.float32))), ("output", tensor([True], "longer"))])
    assert lines == [
        "input   x       FP32  [1, 2]  1 0.5",
        "output  longer  BOOL  [1]     true",
    ]
    assert tensor_lines([]) == []


def test_the_first_values_are_shown_and_that_there_are_more() -> None:
    assert first_values(tensor(np.arange(6, dtype=np.int64))) == "0 1 2 3 4 …"
    assert first_values(tensor(np.array([1 / 3], np.float32))) == "0.333333"
    assert first_values(tensor(np.zeros((0, 2), np.float32))) == "(empty)"
    held = np.empty(2, object)
    held[:] = [b"a\xffb", b"x" * 100]
    assert first_values(tensor(held, kind=DataType.BYTES)) == repr("a\\xffb") + " " + repr("x" * 40 + "…")
    assert first_values(tensor(np.array([0x3F80], np.uint16), kind=DataType.BF16)) == "1"


def test_the_summary_has_every_latency_in_milliseconds() -> None:
    assert summary([0.00125]) == "1 answer, as the metadata says; 1.25 ms"
    assert summary([0.003, 0.001, 0.002]) == ("3 answers, as the metadata says; ms: least 1.00, median 2.00, most 3.00")
