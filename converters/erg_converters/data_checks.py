"""Checks one sample against the model's inputs; a NaN found here is a sample's name, found later it is a mystery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from erg_converters.errors import DataError
from erg_converters.sources.base import Array, Feed, InputSpec
from erg_converters.tables import suggestion


def check_sample(feed: Mapping[str, Any], inputs: Sequence[InputSpec], name: str) -> Feed:
    """The sample as arrays of the inputs' dtypes, in the inputs' order; `name` is the sample's.

    Whole numbers may be of another width than the input's where every value fits; nothing else is cast.

    Raises:
        DataError: an input is missing or unknown, or an array has another shape or dtype, or is empty or not finite.
    """
    known = [spec.name for spec in inputs]
    for key in feed:
        if key not in known:
            raise DataError(f"{name}: the model has no input '{key}'{suggestion(str(key), known)}")
    found: dict[str, Array] = {}
    sizes: dict[str, tuple[str, int]] = {}
    for spec in inputs:
        if spec.name not in feed:
            raise DataError(
                f"{name}: input '{spec.name}' is missing; the sample has {', '.join(map(str, feed)) or 'nothing'}"
            )
        where = f"{name}: input '{spec.name}'"
        try:
            array = _cast(np.asarray(feed[spec.name]), spec, where)
        except ValueError as error:
            raise DataError(f"{where} is no array: {error}") from None
        _check_shape(array, spec, where)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            position = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
            value = float(array[position])
            raise DataError(f"{where} has {value} at {list(position)}; every value has to be finite")
        for index, axis in spec.dynamic.items():
            other, size = sizes.setdefault(axis, (spec.name, array.shape[index]))
            if array.shape[index] != size:
                raise DataError(
                    f"{where} has {array.shape[index]} along axis '{axis}', where input '{other}' has {size}"
                )
        found[spec.name] = array
    return found


def _cast(array: Array, spec: InputSpec, where: str) -> Array:
    wanted = spec.dtype
    if array.dtype == wanted:
        return array
    if array.dtype.kind in "iu" and wanted.kind in "iu":
        cast = array.astype(wanted)
        if np.array_equal(cast, array):
            return cast
        raise DataError(f"{where} takes {wanted} ({spec.datatype}), and holds values that do not fit into it")
    raise DataError(
        f"{where} takes {wanted} ({spec.datatype}), not {array.dtype}; cast the data: .astype('{wanted.name}')"
    )


def _check_shape(array: Array, spec: InputSpec, where: str) -> None:
    wanted = (1, *spec.dims[1:])
    fits = len(array.shape) == len(wanted) and all(
        want in {size, -1} for size, want in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        raise DataError(f"{where} takes shape {list(wanted)} (a batch of one, -1 any), not {list(array.shape)}")
    if not array.size:
        raise DataError(f"{where} is empty: shape {list(array.shape)}")
