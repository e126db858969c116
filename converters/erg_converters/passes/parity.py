"""Whether an ONNX file computes what its source computes: over shapes that the export never saw, one row included."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from erg_converters.errors import ParityError

if TYPE_CHECKING:
    from erg_converters.sources.base import InputSpec

BATCH_SIZES = (1, 2, 1, 5, 8, 3)
LENGTHS = (2, 19, 32, 7, 64, 128)
"""Sizes of the axis called "length", in step with the batch sizes: the least, odd ones, and those that are served."""
OTHER_SIZES = (32, 96, 64, 160, 32, 128)
"""Sizes of any other dynamic axis: the steps of 32 that convolutions with strides want of images."""

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far a file is from its source: the worst element over every shape, and how many shapes there were."""

    max_absolute_difference: float
    shapes: int


def parity_sizes(specs: Sequence[InputSpec], max_sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes of the dynamic axes by name, each set once, cut to what the model takes."""
    batch = {spec.dynamic[0] for spec in specs if 0 in spec.dynamic}
    others = {name for spec in specs for name in spec.dynamic.values()} - batch
    seen: list[dict[str, int]] = []
    for index, rows in enumerate(BATCH_SIZES):
        sizes = dict.fromkeys(sorted(batch), rows)
        for name in sorted(others):
            size = LENGTHS[index] if name == "length" else OTHER_SIZES[index]
            sizes[name] = min(size, max_sizes.get(name, size))
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def open_session(path: Path, threads: int = 0) -> Any:
    """ONNX Runtime on the CPU, quiet; `threads` 0 leaves them to it.

    Raises:
        ParityError: it does not load the file; its words are in the message.
    """
    # Imported here: recipes are checked without it.
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Spinning threads would take the CPU from whatever is measured beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ParityError(f"ONNX Runtime does not load {path.name}: {str(error).splitlines()[0]}") from error


def check_parity(
    path: Path,
    reference: Callable[[Mapping[str, Array]], Sequence[Array]],
    feeds: Sequence[Mapping[str, Array]],
    bound: float,
    progress: Callable[[int, int], None],
) -> Parity:
    """Compare the file, run by ONNX Runtime, with `reference` over `feeds`.

    A floating-point output may differ by `bound` in any element; outputs of other types have to be equal.

    Raises:
        ParityError: it differs by more, or gives values that are not finite; the message says at which shape.
    """
    session = open_session(path)
    names = [item.name for item in session.get_outputs()]
    worst = 0.0
    for number, feed in enumerate(feeds):
        progress(number, len(feeds))
        shape = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        expected = reference(feed)
        try:
            got = session.run(None, dict(feed))
        except Exception as error:
            words = str(error).splitlines()[0]
            raise ParityError(f"the source takes {shape}, the ONNX file does not: {words}") from error
        for name, one, other in zip(names, got, expected, strict=True):
            worst = max(worst, _difference(name, np.asarray(one), np.asarray(other), shape, bound))
    progress(len(feeds), len(feeds))
    return Parity(max_absolute_difference=worst, shapes=len(feeds))


def _difference(name: str, got: Array, expected: Array, shape: str, bound: float) -> float:
    if got.shape != expected.shape:
        raise ParityError(f"at {shape} output '{name}' is {list(got.shape)}, the source's is {list(expected.shape)}")
    if got.dtype.kind != "f":
        if not np.array_equal(got, expected):
            raise ParityError(f"at {shape} output '{name}' differs from the source's")
        return 0.0
    if not np.isfinite(got).all():
        whose = "the source's own" if not np.isfinite(expected).all() else "the ONNX file's"
        raise ParityError(
            f"at {shape} {whose} output '{name}' has values that are not finite, with which nothing can be compared; "
            "look for weights that are not finite, and for logarithms or roots of what may be below 0"
        )
    difference = float(np.abs(got.astype(np.float64) - expected).max()) if got.size else 0.0
    if not difference <= bound:
        raise ParityError(
            f"at {shape} output '{name}' differs from the source's by {difference:.3g}; allowed is {bound:.3g} "
            "(export.max_absolute_difference)"
        )
    return difference
