"""Calibration samples as the quantization tools take them: checked, counted as they are used, padded where need be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from erg_converters.errors import DataError, PassError

if TYPE_CHECKING:
    from erg_converters.passes.base import PassContext
    from erg_converters.sources.base import Array, Feed


def calibration_feeds(context: PassContext, model: onnx.ModelProto, limit: int) -> list[Feed]:
    """The first `limit` calibration samples (0: all), held against the inputs of the graph that is calibrated.

    Raises:
        PassError: there is no calibration data.
        DataError: a sample lacks an input, or has another dtype, rank or fixed size, or a value that is not finite.
    """
    if context.calibration is None:
        raise PassError("there is no calibration data: add a [calibration] table to the recipe")
    samples = list(context.calibration.samples[: limit or None])
    if not samples:
        raise DataError(f"{context.calibration.name}: no samples to calibrate with")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for index, sample in enumerate(samples):
        where = f"{context.calibration.name}: sample {index}"
        if missing := [value.name for value in inputs if value.name not in sample]:
            raise DataError(f"{where} lacks input '{missing[0]}'; it has {', '.join(sorted(sample)) or 'none'}")
        for value in inputs:
            _check(where, value, sample[value.name])
    names = [value.name for value in inputs]
    return [{name: sample[name] for name in names} for sample in samples]


def _check(where: str, value: onnx.ValueInfoProto, array: Array) -> None:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    fits = len(sizes) == array.ndim and all(size in (-1, got) for size, got in zip(sizes, array.shape, strict=True))
    if array.dtype != dtype or (tensor.HasField("shape") and not fits):
        raise DataError(f"{where}: input '{value.name}' takes {dtype} {sizes}, not {array.dtype} {list(array.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: input '{value.name}' has a value that is not finite; leave the sample out")


def padded(feeds: Sequence[Feed], pad: dict[str, float]) -> list[Feed]:
    """The feeds with every axis after the batch filled to the largest of them all, by `pad` of each input's name."""
    largest = {name: np.max([feed[name].shape[1:] for feed in feeds], axis=0) for name in feeds[0]}
    return [
        {
            name: np.pad(
                array,
                [(0, 0), *((0, int(size) - had) for size, had in zip(largest[name], array.shape[1:], strict=True))],
                constant_values=pad.get(name, 0.0),
            )
            for name, array in feed.items()
        }
        for feed in feeds
    ]


class Counted:
    """Feeds that tell `progress` how many were taken; a tool goes over them `rounds` times.

    Iterable again and again, as NNCF wants; `get_next` is ONNX Runtime's `CalibrationDataReader`.
    """

    def __init__(self, feeds: Sequence[Feed], progress: Callable[[int, int], None]) -> None:
        self.rounds = 1
        self._feeds = feeds
        self._progress = progress
        self._taken = 0
        self._reader = iter(self)

    def __len__(self) -> int:
        return len(self._feeds)

    def __iter__(self) -> Iterator[Feed]:
        for feed in self._feeds:
            # Before the yield: tools leave the last sample's loop without asking for another.
            total = self.rounds * len(self._feeds)
            self._taken = min(self._taken + 1, total)
            self._progress(self._taken, total)
            yield feed

    def get_next(self) -> Feed | None:
        """The next feed; None after the last."""
        return next(self._reader, None)
