"""Reads samples, not yet checked, from each kind of data."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erg_converters.errors import ConversionError, DataError
from erg_converters.locations import find, find_function
from erg_converters.settings import DataSettings
from erg_converters.sources.base import InputSpec, random_feed

LABELS = "labels"
RANDOM_LENGTHS = tuple(range(16, 49))
"""Sizes of the axis "length" in generated samples: as long as sentences are."""
RANDOM_SIZES = (32, 64, 96)
"""Sizes of other dynamic axes: the steps of 32 that convolutions with strides want of images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """One sample as it was read. `name` finds it again: file and line, or file and position."""

    name: str
    feed: Mapping[str, Any]
    label: int | None = None


def read_samples(settings: DataSettings, inputs: Sequence[InputSpec], base: Path) -> Iterator[Raw]:
    """The samples that the settings choose, in the order that `seed` gives.

    Raises:
        DataError: nothing is there, or it is not what its kind says.
    """
    if settings.kind == "random":
        yield from _random(settings, inputs)
    elif settings.kind == "python":
        yield from _python(settings, base)
    elif settings.kind == "npz":
        yield from _npz(settings, locate(settings.path, base, "path"))
    elif settings.kind == "jsonl":
        from erg_converters.data_text import read_jsonl  # noqa: PLC0415  # only where there is text

        tokenizer = locate(settings.tokenizer, base, "tokenizer")
        yield from read_jsonl(settings, inputs, locate(settings.path, base, "path"), tokenizer)
    else:
        from erg_converters.data_images import read_images  # noqa: PLC0415  # only where there are images

        yield from read_images(settings, inputs, locate(settings.path, base, "path"))


def chosen(count: int, settings: DataSettings) -> list[int]:
    """Positions of the samples to take of `count`: shuffled by the seed, then `skip` left out and `samples` taken."""
    order = (
        list(range(count)) if settings.seed < 0 else np.random.default_rng(settings.seed).permutation(count).tolist()
    )
    return order[settings.skip : settings.skip + settings.samples if settings.samples else None]


def locate(location: str, base: Path, key: str) -> Path:
    """A path of the settings that is there; raises DataError."""
    try:
        path = find(location, base)
    except ConversionError as error:
        raise DataError(f"{key} = {error.message}") from error
    if not path.exists():
        raise DataError(f"{key} = '{location}': there is no {path}")
    return path


def _npz(settings: DataSettings, path: Path) -> Iterator[Raw]:
    try:
        # Objects in a .npz are pickled, and loading them would run what is inside.
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is no .npz of plain arrays: {error}") from error
    labels = arrays.pop(LABELS, None)
    if not arrays:
        raise DataError(f"{path} holds no arrays but '{LABELS}'; save one by the name of each of the model's inputs")
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if labels is not None:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise DataError(f"{path}: '{LABELS}' is int64 of shape [samples], not {labels.dtype} {list(labels.shape)}")
        counts[LABELS] = len(labels)
    if len(set(counts.values())) != 1:
        raise DataError(f"{path}: the arrays have different numbers of samples along their first axis: {counts}")
    for index in chosen(next(iter(counts.values())), settings):
        feed = {name: array[index : index + 1] for name, array in arrays.items()}
        label = None if labels is None else int(labels[index])
        yield Raw(name=f"{path.name} sample {index}", feed=feed, label=label)


def _python(settings: DataSettings, base: Path) -> Iterator[Raw]:
    function = find_function(settings.entry, base, "entry", DataError)
    try:
        given = list(function())
    except Exception as error:
        raise DataError(f"entry = '{settings.entry}' failed: {type(error).__name__}: {error}") from error
    for index in chosen(len(given), settings):
        name = f"{settings.entry} sample {index}"
        item = given[index]
        feed, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(feed, Mapping):
            raise DataError(
                f"{name} is a {type(feed).__name__}; a sample is {{input: array}} or ({{input: array}}, label)"
            )
        if label is not None and (isinstance(label, bool) or not isinstance(label, int | np.integer)):
            raise DataError(f"{name} has the label {label!r}; a label is a whole number")
        yield Raw(name=name, feed=feed, label=None if label is None else int(label))


def _random(settings: DataSettings, inputs: Sequence[InputSpec]) -> Iterator[Raw]:
    axes = sorted({axis for spec in inputs for axis in spec.dynamic.values()} - {"batch"})
    # Another stream for every seed and sample, so that two seeds share none.
    for index in range(settings.skip, settings.skip + settings.samples):
        seeds = np.random.SeedSequence([settings.seed + 1, index]).generate_state(2)
        random = np.random.default_rng(seeds[0])
        sizes = {axis: int(random.choice(RANDOM_LENGTHS if axis == "length" else RANDOM_SIZES)) for axis in axes}
        yield Raw(name=f"random sample {index}", feed=random_feed(tuple(inputs), sizes | {"batch": 1}, int(seeds[1])))
