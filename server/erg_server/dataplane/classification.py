"""The classification extension: the top classes of an output as "value:index:label" strings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from erg_server.datatype import DataType
from erg_server.errors import InvalidArgumentError
from erg_server.tensor import Tensor, pack_bytes_elements


def classify(tensor: Tensor, count: int, labels: tuple[str, ...], *, batched: bool) -> Tensor:
    """The `count` highest values of each row, highest first, ties by the lower index.

    A row is everything behind the batch axis. BF16 is compared by its value; NaN comes last.

    Raises:
        InvalidArgumentError: the output holds strings.
    """
    if tensor.datatype is DataType.BYTES:
        raise InvalidArgumentError(f"output '{tensor.name}' holds strings, which have no top classes")
    values = tensor.numpy()
    if tensor.datatype is DataType.BF16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    split = 1 if batched and values.ndim else 0
    rows = values.reshape(math.prod(values.shape[:split]), math.prod(values.shape[split:]))
    taken = min(count, rows.shape[1])
    # As Triton prints them: floats with six decimals, integers with none.
    style = "f" if rows.dtype.kind == "f" else "d"
    texts = [
        f"{row[index]:{style}}:{index}" + (f":{labels[index]}" if index < len(labels) else "")
        for row, indices in zip(rows.tolist(), _descending(rows)[:, :taken].tolist(), strict=True)
        for index in indices
    ]
    shape = (rows.shape[0], taken) if batched else (taken,)
    return Tensor(tensor.name, DataType.BYTES, shape, pack_bytes_elements(texts))


def _descending(rows: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Indices of each row from its highest value to its lowest, ties by the lower index."""
    if rows.dtype.kind == "f":
        return np.argsort(-rows, axis=1, kind="stable")
    # Neither unsigned integers nor the least integer can be negated: sort mirrored rows and mirror the outcome.
    mirrored: npt.NDArray[np.intp] = np.argsort(rows[:, ::-1], axis=1, kind="stable")
    descending: npt.NDArray[np.intp] = rows.shape[1] - 1 - mirrored[:, ::-1]
    return descending
