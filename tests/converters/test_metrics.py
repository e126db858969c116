"""Metrics by hand-made answers whose drop is known, and the interval of the drop."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from erg_converters.bootstrap import Indices, interval
from erg_converters.errors import ConversionError
from erg_converters.metrics import cosines, estimate, rows
from erg_converters.settings import GateSettings

RANDOM = np.random.default_rng(0)


def answers(*values: list[float]) -> list[np.ndarray]:
    return [np.array([value], np.float32) for value in values]


def settings(metric: str, **rest: object) -> GateSettings:
    return GateSettings(**{"metric": metric, "resamples": 400, **rest})  # type: ignore[arg-type]


def test_top1_drops_by_the_share_of_labels_lost_whatever_the_source_says():
    source = answers([1, 0], [0, 1], [1, 0], [1, 0])
    variant = answers([1, 0], [1, 0], [0, 1], [1, 0])
    found = estimate(settings("top1"), source, variant, np.array([0, 1, 1, 0]))
    # One sample was lost and another gained, which the source had wrong: the drop is nothing, and is not sure.
    assert (found.baseline, found.value, found.drop) == (0.75, 0.75, 0.0)
    assert found.low < 0 < found.high


def test_agreement_asks_for_the_sources_class_and_no_labels():
    found = estimate(settings("agreement"), answers([1, 0], [0, 1]), answers([2, 1], [1, 0]), None)
    assert (found.baseline, found.value, found.drop) == (1.0, 0.5, 0.5)


def test_cosine_is_of_whole_answers_and_does_not_see_their_length():
    found = estimate(settings("cosine"), answers([1, 1], [0, 1]), answers([3, 3], [1, 1]), None)
    assert found.value == pytest.approx((1 + 2**-0.5) / 2)


def test_the_largest_difference_counts_and_less_is_better():
    found = estimate(settings("max_difference"), answers([1, 1], [0, 1]), answers([1, 3], [0, 1.5]), None)
    assert (found.baseline, found.value, found.drop) == (0.0, -2.0, 2.0)


def test_spearman_ranks_pairs_so_that_any_rising_change_of_similarities_is_no_loss():
    source = [RANDOM.normal(size=(1, 6)) for _ in range(12)]
    assert estimate(settings("spearman"), source, [3 * each for each in source], None).drop == pytest.approx(0)
    shuffled = estimate(settings("spearman"), source, [*source[1:], source[0]], None)
    assert shuffled.drop > 0.2
    assert shuffled.low <= shuffled.drop <= shuffled.high


def ranked(values: list[float]) -> list[float]:
    """Ranks by counting: equal values share the mean of the places that they take."""
    return [(sum(o < v for o in values) + sum(o <= v for o in values) + 1) / 2 for v in values]


def test_spearman_is_the_correlation_of_ranks_that_equal_similarities_share():
    # Pair similarities of 0 (twice), 0.7 (three times) and 1 against six different ones.
    source = answers([1, 0], [1, 0], [0, 1], [0.7, 0.7])
    variant = answers([1, 0], [0.9, 0.2], [0.1, 1], [0.5, 0.8])
    first, second = (
        [float(cosines([a.ravel()], [b.ravel()])[0].round(6)) for a, b in itertools.combinations(each, 2)]
        for each in (source, variant)
    )
    expected = float(np.corrcoef(ranked(first), ranked(second))[0, 1])
    exact = [np.asarray(each, np.float64) for each in source]
    assert estimate(settings("spearman"), exact, variant, None).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "count", "told"), [("top1", 3, "needs labels"), ("spearman", 2, "3 or more"), ("spearman", 0, "3")]
)
def test_a_metric_that_does_not_fit_the_data_says_what_it_needs(metric, count, told):
    with pytest.raises(ConversionError, match=told):
        estimate(settings(metric), answers(*[[1.0, 0.0]] * count), answers(*[[1.0, 0.0]] * count), None)


def test_answers_of_different_size_have_no_pair_similarities():
    ragged = answers([1, 0], [1, 0, 1], [1, 1])
    with pytest.raises(ConversionError, match="differ in size"):
        estimate(settings("spearman"), ragged, ragged, None)


def test_vectors_of_zeros_agree_with_each_other_and_with_nothing_else():
    zero, one = np.zeros(2), np.ones(2)
    assert cosines(rows([zero, zero]), rows([zero, one])).tolist() == [1.0, 0.0]


def mean_of(values: np.ndarray) -> Callable[[Indices], float]:
    return lambda chosen: float(values[chosen].mean())


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    covered = 0
    for seed in range(200):
        values = np.random.default_rng(seed).normal(1.0, 1.0, 60)
        low, high = interval(60, mean_of(values), confidence=0.9, resamples=300, seed=seed)
        covered += low <= 1.0 <= high
    # 90 % of 200, within four standard deviations of that count.
    assert 163 <= covered <= 197


@pytest.mark.parametrize("noise", [1e-3, 1e-2])
def test_the_interval_of_pair_similarities_holds_what_was_found_however_small(noise: float) -> None:
    random = np.random.default_rng(3)
    source = [random.standard_normal(32) for _ in range(120)]
    variant = [row + noise * random.standard_normal(32) for row in source]
    found = estimate(settings("spearman"), source, variant, None)
    assert found.low < found.drop < found.high


def test_a_pairing_takes_out_what_both_find_hard():
    hard = RANDOM.normal(0, 10, 200)
    paired = interval(200, lambda i: float((hard[i] + 1 - hard[i]).mean()), confidence=0.95, resamples=200, seed=0)
    assert paired == pytest.approx((1.0, 1.0))


def test_equal_seeds_give_equal_intervals_and_more_confidence_wider_ones():
    values = RANDOM.normal(size=50)

    def bounds(confidence: float, seed: int) -> tuple[float, float]:
        return interval(50, lambda i: float(values[i].mean()), confidence=confidence, resamples=500, seed=seed)

    assert bounds(0.95, 1) == bounds(0.95, 1) != bounds(0.95, 2)
    assert bounds(0.99, 1)[0] < bounds(0.8, 1)[0] < bounds(0.8, 1)[1] < bounds(0.99, 1)[1]
