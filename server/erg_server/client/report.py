"""What `erg infer` prints: tensors with a few of their values, and how long answers took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from erg_server.client.answer import values
from erg_server.tensor import Tensor

SHOWN_VALUES = 5
SHOWN_BYTES = 40


def tensor_lines(rows: Sequence[tuple[str, Tensor]]) -> list[str]:
    """A line a tensor, in columns: what it is, name, datatype, shape, first values."""
    cells = [(what, each.name, each.datatype.value, str(list(each.shape)), first_values(each)) for what, each in rows]
    widths = [max((len(row[column]) for row in cells), default=0) for column in range(4)]
    return [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4])) for row in cells
    ]


def first_values(tensor: Tensor) -> str:
    """The first elements in C order."""
    held = values(tensor).ravel()
    more = " …" if held.size > SHOWN_VALUES else ""
    return (" ".join(_text(value) for value in held[:SHOWN_VALUES]) or "(empty)") + more


def summary(latencies_s: Sequence[float]) -> str:
    """How many answers there were, and their latency as this client saw it."""
    if len(latencies_s) == 1:
        return f"1 answer, as the metadata says; {latencies_s[0] * 1e3:.2f} ms"
    low, middle, high = min(latencies_s), statistics.median(latencies_s), max(latencies_s)
    return (
        f"{len(latencies_s)} answers, as the metadata says; "
        f"ms: least {low * 1e3:.2f}, median {middle * 1e3:.2f}, most {high * 1e3:.2f}"
    )


def _text(value: object) -> str:
    if isinstance(value, bytes):
        shown = value[:SHOWN_BYTES].decode(errors="backslashreplace")
        return repr(shown + "…" if len(value) > SHOWN_BYTES else shown)
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
