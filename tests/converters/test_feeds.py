"""Which inputs a conversion is measured and compared on."""

from __future__ import annotations

import numpy as np
from erg_converters.data import Dataset
from erg_converters.feeds import golden_feeds, measured_feeds, unseen_feeds, usual_sizes
from erg_converters.settings import MeasureSettings
from erg_converters.sources.base import Feed, InputSpec

from tests.converters.builders import IMAGE_SPECS, TOKEN_SPECS, images, tokens

PAGE_SPECS = (InputSpec(name="page", datatype="FP32", dims=(-1, 1, -1, -1), axes=("batch", "height", "width")),)


def dataset(*samples: Feed) -> Dataset:
    return Dataset(name="d", samples=samples, labels=None, sha256="s")


def page(height: int, width: int) -> Feed:
    return {"page": np.ones((1, 1, height, width), np.float32)}


def test_every_batch_size_and_length_is_measured() -> None:
    feeds = measured_feeds(TOKEN_SPECS, None, MeasureSettings(batch_sizes=(1, 8), lengths=(16, 32)), {})
    assert {key: feed["input_ids"].shape for key, feed in feeds.items()} == {
        (1, 16): (1, 16),
        (1, 32): (1, 32),
        (8, 16): (8, 16),
        (8, 32): (8, 32),
    }


def test_lengths_that_the_model_does_not_take_are_left_out() -> None:
    feeds = measured_feeds(TOKEN_SPECS, None, MeasureSettings(batch_sizes=(1,)), {"length": 64})
    assert list(feeds) == [(1, 32)]


def test_without_a_length_axis_samples_are_measured_over_and_over() -> None:
    one, other = images(1, seed=1), images(1, seed=2)
    feeds = measured_feeds(IMAGE_SPECS, dataset(one, other), MeasureSettings(batch_sizes=(3,)), {})
    assert list(feeds) == [(3, None)]
    wanted = np.concatenate([one["image"], other["image"], one["image"]])
    np.testing.assert_array_equal(feeds[3, None]["image"], wanted)


def test_other_dynamic_axes_are_of_the_samples_usual_size() -> None:
    sizes = usual_sizes(PAGE_SPECS, dataset(page(32, 96), page(64, 96), page(96, 320)), {"height": 48})
    assert (sizes["height"], sizes["width"]) == (48, 96)


def test_shapes_that_were_calibrated_on_are_not_unseen() -> None:
    every = unseen_feeds(TOKEN_SPECS, None, {})
    seen = dataset(tokens(1, every[0]["input_ids"].shape[1]))
    rest = unseen_feeds(TOKEN_SPECS, seen, {})
    assert len(rest) == len(every) - 1
    assert unseen_feeds(IMAGE_SPECS, None, {}) == ()


def test_a_golden_sample_is_the_two_smallest_real_rows_padded_together() -> None:
    samples = dataset(tokens(1, 9), tokens(1, 4), tokens(1, 6))
    first, second, last = golden_feeds(TOKEN_SPECS, samples, {})
    assert first["input_ids"].shape == (2, 6)
    assert first["attention_mask"].sum(axis=1).tolist() == [4, 6]
    assert second["input_ids"].shape == (1, 4)
    assert last["input_ids"].shape == (2, 12)


def test_without_samples_a_golden_sample_is_random() -> None:
    (only,) = golden_feeds(PAGE_SPECS, None, {})
    assert only["page"].shape == (2, 1, 64, 64)
