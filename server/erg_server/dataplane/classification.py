"""The classification extension: the top classes of an output as "value:index:label" strings."""

from __future__ import annotations

import numpy as np

from erg_server.errors import InvalidArgumentError
from erg_server.tensor import DataType, Tensor, pack_bytes_elements


def classify(tensor: Tensor, count: int, labels: tuple[str, ...], *, batched: bool) -> Tensor:
    """The `count` highest values of each row, highest first, ties by the lower index.

    A row is everything behind the batch axis. BF16 is compared by its value.

    Raises:
        InvalidArgumentError: the output holds strings.
    """
    if tensor.datatype is DataType.BYTES:
        raise InvalidArgumentError(f"output '{tensor.name}' holds strings, which have no top classes")
    values = tensor.numpy()
    if tensor.datatype is DataType.BF16:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    rows = values.reshape(values.shape[0], -1) if batched and values.ndim else values.reshape(1, -1)
    taken = min(count, rows.shape[1])
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :taken]
    texts = [
        f"{row[index]:f}:{index}" + (f":{labels[index]}" if index < len(labels) else "")
        for row, indices in zip(rows, order.tolist(), strict=True)
        for index in indices
    ]
    shape = (rows.shape[0], taken) if batched else (taken,)
    return Tensor(tensor.name, DataType.BYTES, shape, pack_bytes_elements(texts))
