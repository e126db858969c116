"""Samples for calibration and evaluation: read, checked against the model's inputs one by one, and collated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from erg_converters.data_checks import check_sample
from erg_converters.data_readers import Raw, read_samples
from erg_converters.errors import DataError
from erg_converters.settings import DataSettings, Recipe
from erg_converters.sources.base import Array, Feed, InputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Samples, each a feed with a batch axis of 1, and labels, int64 [samples], where there are any.

    `sha256` is of every name, shape, value and label, in order. `synthetic` says that the samples were generated.
    """

    name: str
    samples: tuple[Feed, ...]
    labels: npt.NDArray[np.int64] | None
    sha256: str
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, size: int, pad: Mapping[str, float]) -> Iterator[dict[str, Array]]:
        """The samples in batches of `size`, the last one smaller; see `collate`."""
        for begin in range(0, len(self.samples), size):
            yield collate(self.samples[begin : begin + size], pad)


def collate(samples: Sequence[Feed], pad: Mapping[str, float]) -> dict[str, Array]:
    """One batch of several feeds: along the first axis, every other axis filled to the largest with `pad` by name."""
    batch: dict[str, Array] = {}
    for name in samples[0]:
        arrays = [sample[name] for sample in samples]
        tail = np.max([array.shape[1:] for array in arrays], axis=0)
        rows = sum(len(array) for array in arrays)
        whole = np.full((rows, *(int(size) for size in tail)), pad.get(name, 0.0), dtype=arrays[0].dtype)
        row = 0
        for array in arrays:
            whole[(slice(row, row + len(array)), *(slice(0, size) for size in array.shape[1:]))] = array
            row += len(array)
        batch[name] = whole
    return batch


def load_data(settings: DataSettings, inputs: Sequence[InputSpec], base: Path) -> Dataset:
    """Read what a recipe's [calibration] or [evaluation] names; `base` is the recipe's folder.

    Raises:
        DataError: nothing there, or a sample of the wrong inputs, shape or dtype, or with NaN or infinity; the message
            names the sample, what was expected and what was got.
    """
    rows = list(read_samples(settings, inputs, base))
    name = settings.path or settings.entry or settings.kind
    if not rows:
        raise DataError(f"{name}: no samples; check path, skip ({settings.skip}) and what the data holds")
    samples = tuple(check_sample(row.feed, inputs, row.name) for row in rows)
    return Dataset(
        name=name,
        samples=samples,
        labels=_labels(rows),
        sha256=_digest(samples, rows),
        synthetic=settings.kind == "random",
    )


def load_table(recipe: Recipe, name: str, inputs: Sequence[InputSpec]) -> Dataset | None:
    """The data of the recipe's table `name`; None where it has no such table.

    Raises:
        DataError: as `load_data`, with the recipe's file and line.
    """
    settings: DataSettings | None = getattr(recipe, name)
    if settings is None:
        return None
    try:
        return load_data(settings, inputs, recipe.folder)
    except DataError as error:
        raise DataError(f"{recipe.lines.where(name, 0)}: [{name}] {error.message}") from error


def _labels(rows: Sequence[Raw]) -> npt.NDArray[np.int64] | None:
    unlabelled = [row.name for row in rows if row.label is None]
    if len(unlabelled) == len(rows):
        return None
    if unlabelled:
        raise DataError(f"{unlabelled[0]} has no label, though others have; label all samples or none")
    return np.array([row.label for row in rows], dtype=np.int64)


def _digest(samples: Sequence[Feed], rows: Sequence[Raw]) -> str:
    digest = hashlib.sha256()
    for sample, row in zip(samples, rows, strict=True):
        for name in sorted(sample):
            array = np.ascontiguousarray(sample[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
        digest.update(f"{row.label}\n".encode())
    return digest.hexdigest()
