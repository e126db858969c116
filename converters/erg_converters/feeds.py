"""The inputs that cost is measured on, answers are compared on, and a golden sample keeps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from erg_converters.data import Dataset, collate
from erg_converters.passes.parity import parity_sizes
from erg_converters.settings import MeasureSettings
from erg_converters.sources.base import Feed, InputSpec, random_feed

LENGTH_AXIS = "length"
GOLDEN_ROWS = 2
GOLDEN_LENGTH = 12
OTHER_SIZE = 64
"""Of a dynamic axis that is neither batch nor length, where no sample tells what is usual."""


def pad_values(inputs: Sequence[InputSpec]) -> dict[str, float]:
    """What fills each input where samples of a batch differ."""
    return {spec.name: spec.pad_value for spec in inputs}


def measured_feeds(
    inputs: tuple[InputSpec, ...], evaluation: Dataset | None, settings: MeasureSettings, max_sizes: Mapping[str, int]
) -> dict[tuple[int, int | None], Feed]:
    """A feed for each batch size and length that is measured; lengths that the model does not take are left out.

    Without an axis called "length" they are evaluation samples, over and over; with one, random inputs of just that
    length, since no batch of samples has it.
    """
    feeds: dict[tuple[int, int | None], Feed] = {}
    has_length = any(LENGTH_AXIS in spec.dynamic.values() for spec in inputs)
    longest = max_sizes.get(LENGTH_AXIS)
    lengths = [length for length in settings.lengths if longest is None or length <= longest]
    for batch in settings.batch_sizes:
        if not has_length and evaluation is not None:
            rows = list(itertools.islice(itertools.cycle(evaluation.samples), batch))
            feeds[batch, None] = collate(rows, pad_values(inputs))
            continue
        sizes_of_length: list[int | None] = [*lengths] if has_length and lengths else [None]
        for length in sizes_of_length:
            sizes = usual_sizes(inputs, evaluation, max_sizes) | {_batch_axis(inputs): batch}
            if length is not None:
                sizes[LENGTH_AXIS] = length
            feeds[batch, length] = random_feed(inputs, sizes, seed=batch)
    return feeds


def unseen_feeds(
    inputs: tuple[InputSpec, ...], calibration: Dataset | None, max_sizes: Mapping[str, int]
) -> tuple[Feed, ...]:
    """Random inputs of shapes that no calibration sample has; none where no axis but the batch's is dynamic."""
    names = {name for spec in inputs for name in spec.dynamic.values()} - {_batch_axis(inputs)}
    if not names:
        return ()
    seen = {_shapes(sample) for sample in calibration.samples} if calibration is not None else set()
    feeds = [random_feed(inputs, sizes, seed) for seed, sizes in enumerate(parity_sizes(inputs, max_sizes), 100)]
    return tuple(feed for feed in feeds if _shapes(feed) not in seen)


def golden_feeds(
    inputs: tuple[InputSpec, ...], evaluation: Dataset | None, max_sizes: Mapping[str, int]
) -> tuple[Feed, ...]:
    """What a golden sample may be, the best first: two real rows, the smallest there are; one; small random ones."""
    most = GOLDEN_ROWS if all(0 in spec.dynamic for spec in inputs) else 1
    sizes = usual_sizes(inputs, None, max_sizes) | {_batch_axis(inputs): most}
    order = sorted(evaluation.samples, key=_bytes) if evaluation is not None else []
    real = [collate(order[:rows], pad_values(inputs)) for rows in range(min(most, len(order)), 0, -1)]
    return (*real, random_feed(inputs, sizes, seed=1))


def usual_sizes(
    inputs: tuple[InputSpec, ...], evaluation: Dataset | None, max_sizes: Mapping[str, int]
) -> dict[str, int]:
    """A size of each dynamic axis: the median of the evaluation samples'."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        for axis, name in spec.dynamic.items():
            usual = GOLDEN_LENGTH if name == LENGTH_AXIS else OTHER_SIZE
            if evaluation is not None and len(evaluation):
                usual = int(np.median([sample[spec.name].shape[axis] for sample in evaluation.samples]))
            sizes[name] = min(usual, max_sizes.get(name, usual))
    return sizes


def _batch_axis(inputs: Sequence[InputSpec]) -> str:
    # A model of a fixed batch of one has none; a name that no input has changes nothing.
    return inputs[0].dynamic.get(0, "batch")


def _shapes(feed: Feed) -> tuple[tuple[int, ...], ...]:
    """The shapes without the batch axis."""
    return tuple(array.shape[1:] for array in feed.values())


def _bytes(sample: Feed) -> int:
    return sum(array.nbytes for array in sample.values())
