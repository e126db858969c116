"""Images by folder: each sub-folder is a label, and its name's place in the sorted names is the label's number."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from erg_converters.data_readers import Raw, chosen
from erg_converters.errors import DataError
from erg_converters.settings import DataSettings
from erg_converters.sources.base import InputSpec

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def read_images(settings: DataSettings, inputs: Sequence[InputSpec], path: Path) -> Iterator[Raw]:
    """The chosen images, resized and cropped about the middle to `size`, as the model's one input.

    A folder whose sub-folders are all whole numbers uses these as labels; a folder without sub-folders has none.

    Raises:
        DataError: no folder, no images in it, a file that is none, or a model with more than one input.
    """
    if len(inputs) != 1:
        raise DataError(f"{path}: images feed a model of one input; this has {', '.join(i.name for i in inputs)}")
    if not path.is_dir():
        raise DataError(f"{path} is no folder; images are in one, with a sub-folder per label")
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
    numbered = bool(folders) and all(folder.name.isdecimal() for folder in folders)
    found: list[tuple[Path, int | None]] = [
        (file, int(folder.name) if numbered else label)
        for label, folder in enumerate(folders)
        for file in _files(folder)
    ]
    found = found or [(file, None) for file in _files(path)]
    if not found:
        raise DataError(f"{path} has no images ({', '.join(sorted(_SUFFIXES))})")
    for index in chosen(len(found), settings):
        file, label = found[index]
        array = read_image(file, settings)
        yield Raw(name=str(file.relative_to(path)), feed={inputs[0].name: array}, label=label)


def read_image(file: Path, settings: DataSettings) -> npt.NDArray[np.float32]:
    """One image, fp32 [1, channels, height, width] or [1, height, width, channels], after mean and scale."""
    channels = len(settings.mean)
    try:
        with warnings.catch_warnings():
            # Past this size a small file can fill the memory: PIL only warns of it.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = _fit(opened.convert("RGB" if channels == 3 else "L"), settings.size)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, Warning) as error:
        raise DataError(f"{file} is no image that PIL reads: {error}") from error
    pixels = np.asarray(image, dtype=np.float32).reshape(*settings.size, channels) / 255.0
    values: npt.NDArray[Any] = (pixels - np.array(settings.mean, np.float32)) / np.array(settings.scale, np.float32)
    if settings.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None], dtype=np.float32)


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale the image until it just covers `size` (height, width), and cut the middle out."""
    height, width = size
    factor = max(height / image.height, width / image.width)
    scaled = image.resize(
        (max(width, round(image.width * factor)), max(height, round(image.height * factor))), Image.Resampling.BILINEAR
    )
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in _SUFFIXES)
