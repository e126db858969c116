"""Samples: each kind is read, chosen and collated, and every fault names the sample, and what was expected and got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from erg_converters.data import Dataset, collate, load_data
from erg_converters.errors import DataError
from erg_converters.settings import DataSettings
from erg_converters.sources.base import InputSpec
from PIL import Image

IMAGE = InputSpec(name="image", datatype="FP32", dims=(-1, 3, -1), axes=("batch", "width"))
IDS = InputSpec(name="input_ids", datatype="INT64", dims=(-1, -1), axes=("batch", "length"), pad_value=9.0)
MASK = InputSpec(name="attention_mask", datatype="INT64", dims=(-1, -1), axes=("batch", "length"))
COUNT = 10


def save_npz(path: Path, **arrays: Any) -> DataSettings:
    np.savez(path / "data.npz", **arrays)
    return DataSettings(kind="npz", path="data.npz", samples=0, seed=-1)


def images(count: int = COUNT, width: int = 4) -> np.ndarray:
    return np.arange(count * 3 * width, dtype=np.float32).reshape(count, 3, width)


def load(settings: DataSettings, folder: Path, *inputs: InputSpec) -> Dataset:
    return load_data(settings, inputs or (IMAGE,), folder)


def refused(settings: DataSettings, folder: Path, *inputs: InputSpec) -> str:
    with pytest.raises(DataError) as error:
        load(settings, folder, *inputs)
    return error.value.message


def test_npz_samples_keep_their_values_order_and_labels(tmp_path):
    data = load(save_npz(tmp_path, image=images(), labels=np.arange(COUNT)), tmp_path)
    assert len(data) == COUNT
    assert data.labels is not None
    assert data.labels.tolist() == list(range(COUNT))
    assert np.array_equal(data.samples[3]["image"], images()[3:4])
    assert not data.synthetic


def test_skip_and_samples_cut_disjoint_parts_of_one_shuffle(tmp_path):
    save_npz(tmp_path, image=images(), labels=np.arange(COUNT))
    parts = [
        load(DataSettings(kind="npz", path="data.npz", samples=4, skip=skip, seed=5), tmp_path) for skip in (0, 4, 8)
    ]
    labels = [int(label) for part in parts if part.labels is not None for label in part.labels]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert sorted(labels) == list(range(COUNT))
    assert labels != list(range(COUNT))


def test_the_digest_changes_with_a_value_a_label_and_the_order(tmp_path):
    other = images()
    other[0, 0, 0] += 1
    kinds: list[dict[str, Any]] = [
        {"image": images()},
        {"image": other},
        {"image": images()[::-1]},
        {"image": images(), "labels": np.arange(COUNT)},
        {"image": images(), "labels": np.arange(COUNT)[::-1]},
    ]
    digests = [load(save_npz(tmp_path, **arrays), tmp_path).sha256 for arrays in kinds]
    assert len(set(digests)) == len(kinds)
    assert load(save_npz(tmp_path, **kinds[0]), tmp_path).sha256 == digests[0]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"image": images().astype(np.float64)}, "data.npz sample 0: input 'image' takes float32 (FP32), not float64"),
        ({"image": images()[:, :2]}, "data.npz sample 0: input 'image' takes shape [1, 3, -1]"),
        ({"image": images(width=0)}, "data.npz sample 0: input 'image' is empty: shape [1, 3, 0]"),
        ({"imag": images()}, "data.npz sample 0: the model has no input 'imag'; did you mean 'image'?"),
        ({"labels": np.arange(3)}, "holds no arrays but 'labels'"),
        ({"image": images(), "labels": np.arange(3)}, "different numbers of samples"),
        ({"image": images(), "labels": np.ones(COUNT)}, "'labels' is int64 of shape [samples], not float64"),
        ({"image": np.array([{"a": 1}], dtype=object)}, "is no .npz of plain arrays"),
        ({"image": images(0)}, "no samples; check path, skip (0)"),
    ],
)
def test_a_wrong_array_is_told_with_its_sample(tmp_path, arrays, told):
    assert told in refused(save_npz(tmp_path, **arrays), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_told_with_its_sample_and_place(tmp_path, value):
    values = images()
    values[7, 2, 1] = value
    message = refused(save_npz(tmp_path, image=values), tmp_path)
    assert f"data.npz sample 7: input 'image' has {value} at [0, 2, 1]" in message


def test_inputs_that_share_an_axis_have_one_size_along_it(tmp_path):
    settings = save_npz(tmp_path, input_ids=np.ones((2, 5), np.int64), attention_mask=np.ones((2, 4), np.int64))
    message = refused(settings, tmp_path, IDS, MASK)
    assert "input 'attention_mask' has 4 along axis 'length', where input 'input_ids' has 5" in message


def test_whole_numbers_widen_but_are_not_cut(tmp_path):
    data = load(save_npz(tmp_path, input_ids=np.ones((1, 5), np.int32)), tmp_path, IDS)
    assert data.samples[0]["input_ids"].dtype == np.int64
    narrow = InputSpec(name="x", datatype="INT8", dims=(-1, 1), axes=("batch",))
    assert "do not fit" in refused(save_npz(tmp_path, x=np.array([[300]])), tmp_path, narrow)


def test_a_path_that_is_not_there_is_told_with_its_key(tmp_path):
    assert "path = 'no.npz': there is no" in refused(DataSettings(kind="npz", path="no.npz"), tmp_path)
    message = refused(DataSettings(kind="npz", path="package:no_such_package/x"), tmp_path)
    assert "package 'no_such_package' is not installed" in message


def test_collating_pads_dynamic_axes_by_each_inputs_value():
    feeds = [{"input_ids": np.ones((1, 2), np.int64)}, {"input_ids": np.ones((1, 4), np.int64)}]
    batch = collate(feeds, {"input_ids": IDS.pad_value})
    assert batch["input_ids"].tolist() == [[1, 1, 9, 9], [1, 1, 1, 1]]
    data = Dataset(name="d", samples=tuple(feeds), labels=None, sha256="")
    assert [len(part["input_ids"]) for part in data.batches(1, {})] == [1, 1]


def save_lines(folder: Path, *lines: str) -> None:
    (folder / "texts.jsonl").write_text("\n".join(lines), encoding="utf-8")


def texts(tokenizer: Path, **rest: Any) -> DataSettings:
    return DataSettings(kind="jsonl", path="texts.jsonl", tokenizer=str(tokenizer), seed=-1, **rest)


def test_texts_are_tokenized_cut_and_labelled(tmp_path, tiny_bert_folder):
    save_lines(tmp_path, json.dumps({"text": "the cat sat on a mat", "y": 2}), "", json.dumps({"text": "dog", "y": 0}))
    data = load(texts(tiny_bert_folder, label_field="y", max_length=5), tmp_path, IDS, MASK)
    assert data.labels is not None
    assert data.labels.tolist() == [2, 0]
    assert data.samples[0]["input_ids"].shape == (1, 5)
    assert data.samples[1]["attention_mask"].all()
    assert set(data.samples[0]) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "texts.jsonl line 2 is not JSON"),
        ("[]", "texts.jsonl line 2: there is no text 'text'"),
        ('{"txt": "a"}', "the line has txt"),
        ('{"text": " "}', "texts.jsonl line 2: 'text' is empty"),
        ('{"text": "a", "y": 1.5}', "texts.jsonl line 2: label 'y' is a whole number, not 1.5"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(tmp_path, tiny_bert_folder, line, told):
    save_lines(tmp_path, '{"text": "cat", "y": 1}', line)
    assert told in refused(texts(tiny_bert_folder, label_field="y"), tmp_path, IDS, MASK)


def test_a_tokenizer_that_is_none_and_an_input_it_cannot_fill_are_told(tmp_path, tiny_bert_folder):
    save_lines(tmp_path, '{"text": "cat"}')
    assert "there is no" in refused(texts(tmp_path), tmp_path, IDS)
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "no tokenizer that the tokenizers library reads" in refused(texts(tmp_path), tmp_path, IDS)
    assert "the model has input 'image'" in refused(texts(tiny_bert_folder), tmp_path, IMAGE)


PICTURE = InputSpec(name="image", datatype="FP32", dims=(-1, 3, 8, 8), axes=("batch",))
FOLDER = DataSettings(kind="images", path="pictures", size=(8, 8), mean=(0.5,) * 3, scale=(0.5,) * 3, seed=-1)


def save_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_images_are_labelled_by_folder_scaled_and_normalised(tmp_path):
    save_image(tmp_path / "pictures" / "blue" / "b.png", (0, 0, 255), size=(20, 10))
    save_image(tmp_path / "pictures" / "red" / "r.png", (255, 0, 0))
    data = load(FOLDER, tmp_path, PICTURE)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    blue = data.samples[0]["image"]
    assert blue.shape == (1, 3, 8, 8)
    assert np.array_equal(np.unique(blue[0, 2]), [1.0])
    assert np.array_equal(np.unique(blue[0, 0]), [-1.0])


def test_folders_that_are_numbers_are_those_labels(tmp_path):
    save_image(tmp_path / "pictures" / "7" / "a.png", (0, 0, 0))
    save_image(tmp_path / "pictures" / "10" / "a.png", (0, 0, 0))
    labels = load(FOLDER, tmp_path, PICTURE).labels
    assert labels is not None
    assert sorted(labels.tolist()) == [7, 10]


def test_a_file_that_is_no_image_is_told(tmp_path):
    (tmp_path / "pictures").mkdir()
    assert "has no images" in refused(FOLDER, tmp_path, PICTURE)
    (tmp_path / "pictures" / "a.png").write_bytes(b"no image")
    assert "a.png is no image" in refused(FOLDER, tmp_path, PICTURE)
    assert "a model of one input" in refused(FOLDER, tmp_path, IDS, MASK)


def python(folder: Path, body: str, module: str) -> DataSettings:
    (folder / f"{module}.py").write_text(f"import numpy as np\ndef samples():\n    {body}\n", encoding="utf-8")
    return DataSettings(kind="python", entry=f"{module}:samples", samples=0, seed=-1)


def test_a_python_entry_beside_the_recipe_gives_samples(tmp_path):
    body = "yield {'image': np.zeros((1, 3, 2), np.float32)}, 4"
    data = load(python(tmp_path, body, "erg_entry_good"), tmp_path)
    assert data.labels is not None
    assert data.labels.tolist() == [4]


@pytest.mark.parametrize(
    ("module", "body", "told"),
    [
        ("erg_entry_raises", "raise KeyError('x')", "failed: KeyError"),
        ("erg_entry_list", "yield [1]", "sample 0 is a list"),
        ("erg_entry_label", "yield {}, 'cat'", "sample 0 has the label 'cat'"),
        ("erg_entry_none", "yield from ()", "no samples"),
        ("erg_entry_ragged", "yield {'image': [[1.0], [1.0, 2.0]]}", "sample 0: input 'image' is no array"),
        ("erg_entry_mixed", "a = {'image': np.zeros((1, 3, 2), np.float32)}; yield a; yield a, 1", "has no label"),
    ],
)  # fmt: skip
def test_a_wrong_python_sample_is_told(tmp_path, module, body, told):
    assert told in refused(python(tmp_path, body, module), tmp_path)


def test_an_entry_that_is_not_there_is_told(tmp_path):
    settings = DataSettings(kind="python", entry="erg_no_such_module:f")
    with pytest.raises(DataError, match="entry = 'erg_no_such_module:f': importing"):
        load(settings, tmp_path)
    with pytest.raises(DataError, match="has no function 'nothing'"):
        load(DataSettings(kind="python", entry="json:nothing"), tmp_path)


def test_two_folders_may_have_an_entry_of_one_name(tmp_path):
    shapes = []
    for width in (2, 3):
        folder = tmp_path / str(width)
        folder.mkdir()
        body = f"yield {{'image': np.zeros((1, 3, {width}), np.float32)}}"
        shapes.append(load(python(folder, body, "erg_entry_twice"), folder).samples[0]["image"].shape)
    assert shapes == [(1, 3, 2), (1, 3, 3)]


def test_random_samples_are_repeatable_and_differ_between_seeds(tmp_path):
    one, again, other = (
        load(DataSettings(kind="random", samples=5, seed=seed), tmp_path, IDS, MASK) for seed in (1, 1, 2)
    )
    assert one.sha256 == again.sha256 != other.sha256
    assert one.synthetic
    assert all(sample["attention_mask"].sum() >= 1 for sample in one.samples)
    assert len({sample["input_ids"].shape for sample in one.samples}) > 1
