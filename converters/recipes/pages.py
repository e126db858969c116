"""Parts of the printed pages that scikit-image ships, as rapidocr's detector and recogniser take them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files

import numpy as np
import numpy.typing as npt
from PIL import Image

Feed = Mapping[str, npt.NDArray[np.float32]]

PAGES = ("page.png", "text.png")
LINE_HEIGHT = 48
DETECTOR_SIDE = 320


def detector_calibration() -> Iterator[tuple[Feed, None]]:
    """Square parts of the pages."""
    return _parts(seed=1, count=16, size=(DETECTOR_SIDE, DETECTOR_SIDE))


def detector_evaluation() -> Iterator[tuple[Feed, None]]:
    """Other square parts of the pages."""
    return _parts(seed=2, count=32, size=(DETECTOR_SIDE, DETECTOR_SIDE))


def recogniser_calibration() -> Iterator[tuple[Feed, None]]:
    """Strips as high as a line of print."""
    return _parts(seed=1, count=24, size=(LINE_HEIGHT * 5, LINE_HEIGHT), height=(20, 36))


def recogniser_evaluation() -> Iterator[tuple[Feed, None]]:
    """Other strips."""
    return _parts(seed=2, count=48, size=(LINE_HEIGHT * 5, LINE_HEIGHT), height=(20, 36))


def _parts(
    *, seed: int, count: int, size: tuple[int, int], height: tuple[int, int] = (100, 160)
) -> Iterator[tuple[Feed, None]]:
    """`count` parts of each page with the aspect of `size` (width, height), fp32 [1, 3, height, width] in -1..1."""
    random = np.random.default_rng(seed)
    for name in PAGES:
        with files("skimage.data").joinpath(name).open("rb") as file:
            page = Image.open(file).convert("RGB")
        for _ in range(count):
            high = int(random.integers(*height))
            wide = min(page.width, int(high * size[0] / size[1]))
            left = int(random.integers(0, page.width - wide + 1))
            top = int(random.integers(0, page.height - high + 1))
            part = page.crop((left, top, left + wide, top + high)).resize(size, Image.Resampling.BICUBIC)
            pixels = np.asarray(part, dtype=np.float32) / 127.5 - 1.0
            yield {"x": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}, None
