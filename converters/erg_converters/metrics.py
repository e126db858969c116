"""How good a variant's answers are: each metric's value for source and variant, and the interval of the drop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erg_converters.bootstrap import Indices, interval
from erg_converters.errors import ConversionError
from erg_converters.settings import GateSettings
from erg_converters.sources.base import Array

MAX_PAIRS = 4000
"""Pairs of a resample: ranking more takes longer and moves the interval's bounds less than another seed does."""

LEAST_SAMPLES: Mapping[str, int] = {"spearman": 3}
"""What a metric needs where one sample is not enough."""

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric's value for the variant and the source, and the drop with its interval (above 0: it got worse)."""

    value: float
    baseline: float
    drop: float
    low: float
    high: float
    samples: int
    confidence: float


def estimate(
    settings: GateSettings, source: Sequence[Array], variant: Sequence[Array], labels: Labels | None
) -> Estimate:
    """Compare answers to the same samples.

    Args:
        settings: which metric, and the interval's confidence, resamples and seed.
        source: the source's answer to each sample, of any shape.
        variant: the variant's, of the same shapes.
        labels: int64 [samples], for metrics of a task.

    Raises:
        ConversionError: the metric needs labels, or more samples than there are.
    """
    baseline, value, drop = _METRICS[settings.metric](rows(source), rows(variant), labels)
    low, high = interval(
        len(source),
        drop,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=settings.seed,
        center=baseline - value if settings.metric in _OF_PAIRS else None,
    )
    return Estimate(
        value=value,
        baseline=baseline,
        drop=baseline - value,
        low=low,
        high=high,
        samples=len(source),
        confidence=settings.confidence,
    )


def rows(answers: Sequence[Array]) -> list[Values]:
    """Each answer as one vector."""
    return [np.asarray(answer, dtype=np.float64).ravel() for answer in answers]


def cosines(source: Sequence[Values], variant: Sequence[Values]) -> Values:
    """Cosine of each vector with the source's; two vectors of zeros agree."""
    found = np.empty(len(source))
    for index, (one, other) in enumerate(zip(source, variant, strict=True)):
        norms = float(np.linalg.norm(one) * np.linalg.norm(other))
        found[index] = float(one @ other) / norms if norms else float(np.array_equal(one, other))
    return found


_Compared = tuple[float, float, Callable[[Indices], float]]


def _of_means(source: Values, variant: Values) -> _Compared:
    """A metric that is a mean over samples: the drop of a resample is the mean of its differences."""
    differences = source - variant
    return float(source.mean()), float(variant.mean()), lambda chosen: float(differences[chosen].mean())


def _cosine(source: Sequence[Values], variant: Sequence[Values], _: Labels | None) -> _Compared:
    return _of_means(np.ones(len(source)), cosines(source, variant))


def _agreement(source: Sequence[Values], variant: Sequence[Values], _: Labels | None) -> _Compared:
    return _of_means(np.ones(len(source)), _hits(variant, np.array([int(row.argmax()) for row in source])))


def _top1(source: Sequence[Values], variant: Sequence[Values], labels: Labels | None) -> _Compared:
    if labels is None:
        raise ConversionError("gate.metric top1 needs labels, and the evaluation data has none; agreement needs none")
    return _of_means(_hits(source, labels), _hits(variant, labels))


def _hits(answers: Sequence[Values], labels: Labels) -> Values:
    return np.array([float(row.argmax() == label) for row, label in zip(answers, labels, strict=True)])


def _max_difference(source: Sequence[Values], variant: Sequence[Values], _: Labels | None) -> _Compared:
    """0 is perfect and less is worse, so that a drop is what it is for every other metric."""
    largest = np.array(
        [float(np.abs(one - other).max(initial=0.0)) for one, other in zip(source, variant, strict=True)]
    )
    return 0.0, -float(largest.max()), lambda chosen: float(largest[chosen].max())


def _spearman(source: Sequence[Values], variant: Sequence[Values], _: Labels | None) -> _Compared:
    """Rank correlation of the samples' pair similarities with the source's (Spearman, 1904)."""
    count = len(source)
    least = LEAST_SAMPLES["spearman"]
    if count < least:
        raise ConversionError(
            f"gate.metric spearman compares pairs, and {count} samples make too few; take {least} or more"
        )
    ours, theirs = _similarities(variant), _similarities(source)
    value = _rank_correlation(ours[np.triu_indices(count, 1)], theirs[np.triu_indices(count, 1)])
    pairs = np.random.default_rng(0).integers(0, count, (2, min(MAX_PAIRS, count * (count - 1) // 2)))

    def drop(chosen: Indices) -> float:
        one, other = chosen[pairs[0]], chosen[pairs[1]]
        # A sample drawn twice is as like itself for every variant: such pairs tell nothing.
        differ = one != other
        one, other = one[differ], other[differ]
        return 1.0 - _rank_correlation(ours[one, other], theirs[one, other])

    return 1.0, value, drop


def _similarities(vectors: Sequence[Values]) -> Values:
    if len({len(vector) for vector in vectors}) > 1:
        raise ConversionError("gate.metric spearman compares answers with each other, and theirs differ in size")
    table = np.stack(vectors)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-30)
    return np.asarray(table @ table.T)


def _rank_correlation(one: Values, other: Values) -> float:
    if len(one) < 2:
        return 1.0
    ranks, others = _ranks(one), _ranks(other)
    spread = float(ranks.std() * others.std())
    if not spread:
        return float(np.array_equal(ranks, others))
    return float(((ranks - ranks.mean()) * (others - others.mean())).mean() / spread)


def _ranks(values: Values) -> Values:
    """Rank of each value; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[inverse])


_OF_PAIRS = frozenset({"spearman"})
"""Metrics of pairs of samples: a resample has fewer that differ, and their ranks lie further apart."""
_METRICS: Mapping[str, Callable[[Sequence[Values], Sequence[Values], Labels | None], _Compared]] = {
    "cosine": _cosine,
    "spearman": _spearman,
    "top1": _top1,
    "agreement": _agreement,
    "max_difference": _max_difference,
}
