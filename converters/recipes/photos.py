"""Photographs that scikit-image and scikit-learn ship, and crops of them, as EfficientNet-lite takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

Feed = Mapping[str, npt.NDArray[np.float32]]

SIZE = 224
PHOTOS = (
    ("skimage.data", "astronaut.png"),
    ("skimage.data", "chelsea.png"),
    ("skimage.data", "coffee.png"),
    ("skimage.data", "motorcycle_left.png"),
    ("skimage.data", "motorcycle_right.png"),
    ("skimage.data", "rocket.jpg"),
    ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
)
CALIBRATION_CROPS = 16
EVALUATION_CROPS = 30


def calibration() -> Iterator[tuple[Feed, None]]:
    """Random crops of every photograph, to set ranges by."""
    return _crops(seed=1, count=CALIBRATION_CROPS)


def evaluation() -> Iterator[tuple[Feed, None]]:
    """Every photograph whole, and other crops of it."""
    for image in _images():
        yield _feed(image), None
    yield from _crops(seed=2, count=EVALUATION_CROPS)


def _images() -> Iterator[Image.Image]:
    for package, name in PHOTOS:
        with files(package).joinpath(name).open("rb") as file:
            yield Image.open(file).convert("RGB")


def _crops(seed: int, count: int) -> Iterator[tuple[Feed, None]]:
    for number, image in enumerate(_images()):
        random = np.random.default_rng(
            int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "little")
        )
        for _ in range(count):
            # Three quarters of the shorter side to all of it: smaller crops often show nothing that has a name.
            side = int(min(image.size) * random.uniform(0.75, 1.0))
            left = int(random.integers(0, image.width - side + 1))
            top = int(random.integers(0, image.height - side + 1))
            crop = image.crop((left, top, left + side, top + side))
            if random.random() < 0.5:
                crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            yield _feed(crop), None


def _feed(image: Image.Image) -> Feed:
    """RGB fp32 [1, 3, 224, 224], scaled as the weights were trained: (value - 127) / 128."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = (np.asarray(square, dtype=np.float32) - 127.0) / 128.0
    return {"image": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}
