"""What a variant has to prove before it may be served: its answers against the source's on held-out data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from erg_server.errors import ErgError

from erg_converters.data import Dataset, collate
from erg_converters.errors import ConversionError
from erg_converters.metrics import Estimate, cosines, estimate, rows
from erg_converters.settings import GateSettings
from erg_converters.sources.base import Array, Feed

BATCH_ROWS = 8
"""Rows of the batches in which a sample's answer is compared with its answer alone."""
UNSEEN_COSINE = 0.9
"""Least mean cosine on generated inputs of shapes that calibration never saw. They are no real inputs, so that the
recipe's own bound would refuse for what no caller sends; a graph that breaks at a shape is far below this."""


class Runs(Protocol):
    """Something that answers feeds; `runner.Runner` and the tests' fakes."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs, in the order of the answers."""
        ...

    def run(self, feed: Feed) -> Sequence[Array]:
        """One batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What was found, and why it is not enough. Cosines are of whole answers with the source's."""

    passed: bool
    reasons: tuple[str, ...]
    metric: Estimate
    cosine_mean: float
    cosine_min: float
    batch_cosine_min: float | None
    deterministic: bool


def judge(
    variant: Runs,
    source: Runs,
    evaluation: Dataset,
    settings: GateSettings,
    *,
    unseen: Sequence[Feed] = (),
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> GateResult:
    """Hold a variant against its source.

    Args:
        variant: what is judged.
        source: what it was made of.
        evaluation: samples that neither training nor calibration saw.
        settings: the metric and the bounds.
        unseen: generated inputs of shapes that calibration did not have.
        advance: told how many of how many runs are done.

    Raises:
        ErgError: one of the two does not run, or the metric does not fit the data.
    """
    output = _output(source, settings)
    total = 2 * len(evaluation) + len(unseen)
    expected: list[Array] = []
    found: list[Array] = []
    broken: list[str] = []
    for number, sample in enumerate(evaluation.samples):
        expected.append(_answer(source, sample)[output])
        answers = _answer(variant, sample)
        if not all(_finite(answer) for answer in answers):
            broken.append(f"sample {number + 1}: an answer is not finite")
        found.append(answers[output])
        advance(2 * (number + 1), total)
    wrong = _mismatch(expected, found)
    if broken or wrong:
        raise ConversionError("; ".join([*broken[:3], *wrong[:3]]))
    metric = estimate(settings, expected, found, evaluation.labels)
    similar = cosines(rows(expected), rows(found))
    batch = _batch_cosine(variant, source, evaluation, output, expected=expected, alone=found)
    deterministic = _deterministic(variant, evaluation.samples[0])
    reasons = _reasons(settings, metric, similar, batch, deterministic=deterministic)
    for number, feed in enumerate(unseen):
        reasons += _check_unseen(variant, source, feed, output)
        advance(2 * len(evaluation) + number + 1, total)
    return GateResult(
        passed=not reasons,
        reasons=tuple(reasons),
        metric=metric,
        cosine_mean=float(similar.mean()),
        cosine_min=float(similar.min()),
        batch_cosine_min=batch,
        deterministic=deterministic,
    )


def _output(source: Runs, settings: GateSettings) -> int:
    if not settings.output:
        return 0
    if settings.output not in source.output_names:
        raise ConversionError(
            f"gate.output '{settings.output}' is not one of the model's: {', '.join(source.output_names)}"
        )
    return source.output_names.index(settings.output)


def _answer(runs: Runs, feed: Feed) -> list[Array]:
    """Copies: the next run may write over what a backend gives."""
    return [np.array(answer) for answer in runs.run(feed)]


def _finite(answer: Array) -> bool:
    return answer.dtype.kind != "f" or bool(np.isfinite(answer).all())


def _mismatch(expected: Sequence[Array], found: Sequence[Array]) -> list[str]:
    return [
        f"sample {number + 1}: the answer has shape {list(ours.shape)}, the source's {list(theirs.shape)}"
        for number, (theirs, ours) in enumerate(zip(expected, found, strict=True))
        if theirs.shape != ours.shape
    ]


def _reasons(
    settings: GateSettings,
    metric: Estimate,
    similar: Array,
    batch: float | None,
    *,
    deterministic: bool,
) -> list[str]:
    reasons: list[str] = []
    if metric.high > settings.max_drop:
        reasons.append(
            f"{settings.metric} drops by {metric.drop:.5f} [{metric.low:.5f}, {metric.high:.5f}] on {metric.samples} "
            f"samples; the far end may be {settings.max_drop:g}"
        )
    if similar.mean() < settings.min_cosine:
        reasons.append(
            f"mean cosine with the source is {similar.mean():.5f}; it has to be {settings.min_cosine:g} at least"
        )
    if batch is not None and batch < settings.batch_tolerance:
        reasons.append(
            f"an answer inside a batch has cosine {batch:.5f} with the same alone; it has to be "
            f"{settings.batch_tolerance:g} at least"
        )
    if not deterministic:
        reasons.append("the same input twice gives different answers")
    return reasons


def _batch_cosine(
    variant: Runs,
    source: Runs,
    evaluation: Dataset,
    output: int,
    *,
    expected: Sequence[Array],
    alone: Sequence[Array],
) -> float | None:
    """Least cosine of answers inside a batch with those alone; None where there are no two samples to join.

    Samples of different shape are joined by padding if the source's own answers stand that, of equal shape if not.
    """
    chosen = list(range(min(BATCH_ROWS, len(evaluation))))
    if len({_shape(evaluation.samples[index]) for index in chosen}) > 1:
        least = _in_batch(source, evaluation, chosen, output, expected)
        if least is None or least < 1 - 1e-4:
            chosen = _largest_group(evaluation)
    return _in_batch(variant, evaluation, chosen, output, alone) if len(chosen) > 1 else None


def _in_batch(
    runs: Runs, evaluation: Dataset, chosen: Sequence[int], output: int, alone: Sequence[Array]
) -> float | None:
    try:
        together = _answer(runs, collate([evaluation.samples[index] for index in chosen], {}))[output]
    except ErgError:
        return None
    if together.ndim == 0 or len(together) != len(chosen):
        return None
    least = 1.0
    for row, index in enumerate(chosen):
        own = alone[index][0]
        # Padding makes an answer longer where it has an axis of the input's length.
        part = together[row][tuple(slice(0, size) for size in own.shape)]
        if part.shape != own.shape:
            return None
        least = min(least, float(cosines(rows([own]), rows([part]))[0]))
    return least


def _largest_group(evaluation: Dataset) -> list[int]:
    groups: defaultdict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
    for index, sample in enumerate(evaluation.samples):
        groups[_shape(sample)].append(index)
    return max(groups.values(), key=len)[:BATCH_ROWS]


def _shape(sample: Feed) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in sample.values())


def _deterministic(variant: Runs, sample: Feed) -> bool:
    first, second = _answer(variant, sample), _answer(variant, sample)
    return all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))


def _check_unseen(variant: Runs, source: Runs, feed: Feed, output: int) -> list[str]:
    """Why a shape that calibration did not have breaks the variant, if it does."""
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
    expected = _answer(source, feed)[output]
    try:
        found = _answer(variant, feed)[output]
    except ErgError as error:
        return [f"it does not run {shapes}: {error.message}"]
    if found.shape != expected.shape or not _finite(found):
        return [f"at {shapes} the answer has shape {list(found.shape)} for {list(expected.shape)}, or is not finite"]
    similar = float(cosines(rows([*expected]), rows([*found])).mean()) if expected.ndim else 1.0
    if similar < UNSEEN_COSINE:
        return [f"at {shapes}, a shape that calibration did not have, mean cosine with the source is {similar:.4f}"]
    return []
