"""What the gate lets pass and refuses, over typed fakes of a source and its variants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from erg_converters.data import Dataset
from erg_converters.errors import ConversionError
from erg_converters.gate import GateResult, judge
from erg_converters.settings import GateSettings
from erg_converters.sources.base import Array, Feed


@dataclass
class Fake:
    """Answers [rows, 3] out of x [rows, length]: per row its sum, its first value and 1; `spoil` changes them."""

    spoil: Callable[[Array, Array], Array] = lambda answer, _x: answer
    calls: int = 0
    output_names: tuple[str, ...] = ("first", "second")

    def run(self, feed: Feed) -> Sequence[Array]:
        self.calls += 1
        x = feed["x"]
        plain = np.stack([x.sum(1), x[:, 0], np.ones(len(x))], axis=1).astype(np.float32)
        return [self.spoil(plain, x), plain + 1]


def dataset(lengths: Sequence[int] = (4,) * 10) -> Dataset:
    random = np.random.default_rng(1)
    samples = tuple({"x": random.normal(size=(1, length)).astype(np.float32)} for length in lengths)
    return Dataset(name="fake", samples=samples, labels=None, sha256="")


def judged(variant: Fake, *, data: Dataset | None = None, unseen: Sequence[Feed] = (), **rest: object) -> GateResult:
    settings = GateSettings(**{"metric": "cosine", "resamples": 200, **rest})  # type: ignore[arg-type]
    return judge(variant, Fake(), data or dataset(), settings, unseen=unseen)


def test_the_same_answers_pass_with_no_drop():
    found = judged(Fake())
    assert found.passed
    assert (found.reasons, found.metric.drop, found.cosine_mean, found.batch_cosine_min) == ((), 0.0, 1.0, 1.0)


def test_the_far_end_of_the_interval_is_what_counts():
    def one_wrong(answer: Array, x: Array) -> Array:
        return np.where(x[:, :1] == dataset().samples[3]["x"][0, 0], -answer, answer)

    # One of ten turned round: a drop of 0.2, which resamples with several of it make larger.
    found = judged(Fake(one_wrong), max_drop=0.3, min_cosine=-1)
    assert found.metric.drop == pytest.approx(0.2)
    assert found.metric.high > 0.3
    assert not found.passed
    assert "cosine drops by 0.20000" in found.reasons[0]
    assert "on 10 samples; the far end may be 0.3" in found.reasons[0]
    assert judged(Fake(one_wrong), max_drop=1.0, min_cosine=-1).passed


def test_a_low_mean_cosine_is_refused_with_figure_and_bound():
    found = judged(Fake(lambda answer, _: -answer), max_drop=9)
    assert found.reasons[0] == "mean cosine with the source is -1.00000; it has to be 0.99 at least"


def test_a_row_that_others_in_its_batch_change_is_refused():
    found = judged(Fake(lambda answer, x: answer + len(x) - 1))
    assert found.batch_cosine_min is not None
    assert found.batch_cosine_min < 0.999
    assert any("an answer inside a batch has cosine" in reason for reason in found.reasons)


def test_samples_of_different_length_are_joined_only_as_far_as_the_source_stands_it():
    # The sum stands padding with zeros; the fake's answers are then the same inside of a batch.
    assert judged(Fake(), data=dataset((3, 4, 5, 4, 4))).batch_cosine_min == 1.0
    alone = dataset((3, 4, 5))

    class NoPadding(Fake):
        def run(self, feed: Feed) -> Sequence[Array]:
            return [answer + feed["x"].shape[1] for answer in super().run(feed)]

    settings = GateSettings(metric="cosine", resamples=200)
    # No two samples have one length, and the source itself changes with padding: nothing is compared.
    assert judge(NoPadding(), NoPadding(), alone, settings).batch_cosine_min is None


def test_an_answer_that_changes_from_call_to_call_is_refused():
    variant = Fake()
    variant.spoil = lambda answer, _x: answer + np.float32(1e-6) * variant.calls
    found = judged(variant)
    assert not found.deterministic
    assert found.reasons == ("the same input twice gives different answers",)


def test_an_answer_that_is_not_finite_ends_the_judging_with_the_samples_number():
    def spoiled(answer: Array, x: Array) -> Array:
        return answer * np.float32(np.nan if x[0, 0] == dataset().samples[2]["x"][0, 0] else 1)

    with pytest.raises(ConversionError, match="sample 3: an answer is not finite"):
        judged(Fake(spoiled))


def test_an_answer_of_another_shape_ends_the_judging():
    with pytest.raises(ConversionError, match=r"sample 1: the answer has shape \[1, 2\], the source's \[1, 3\]"):
        judged(Fake(lambda answer, _: answer[:, :2]))


def test_another_output_may_be_judged():
    assert judged(Fake(lambda answer, _: -answer), output="second").passed
    with pytest.raises(ConversionError, match=r"gate\.output 'third' is not one of the model's: first, second"):
        judged(Fake(), output="third")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda answer, x: answer if x.shape[1] == 4 else -answer, "a shape that calibration did not have"),
        (lambda answer, x: answer if x.shape[1] == 4 else answer[:, :1], "the answer has shape [2, 1] for [2, 3]"),
        (lambda answer, x: answer if x.shape[1] == 4 else answer * np.float32(np.inf), "or is not finite"),
    ],
)
def test_a_shape_that_breaks_the_variant_is_told(spoil, told):
    found = judged(Fake(spoil), unseen=[{"x": np.ones((2, 9), np.float32)}])
    assert not found.passed
    assert "x [2, 9]" in found.reasons[0]
    assert told in found.reasons[0]


def test_a_shape_that_the_backend_refuses_is_told_with_its_words():
    def refuse(answer: Array, x: Array) -> Array:
        if x.shape[1] != 4:
            raise ConversionError("no kernel")
        return answer

    found = judged(Fake(refuse), unseen=[{"x": np.ones((2, 9), np.float32)}])
    assert found.reasons == ("it does not run x [2, 9]: no kernel",)
