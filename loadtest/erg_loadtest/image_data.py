"""Images as a model's input: decoded, fitted to its size, scaled as it was trained, in its layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Sample
from erg_loadtest.tensors import Array, InputSpec, Signature, numpy_dtype

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_CHANNELS = {1: "L", 3: "RGB"}
_MAX_SIDE = 1 << 14

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """What becomes of a pixel of 0 to 255: (pixel - mean) / std, by channel."""

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(self.std)) or 0 in self.std:
            raise PlanError(f"image mean {self.mean} and std {self.std} must be finite, and no std 0")


NORMALIZATIONS: Mapping[str, Normalization] = {
    "raw": Normalization(),
    "unit": Normalization(std=(255.0, 255.0, 255.0)),
    "signed": Normalization(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    "imagenet": Normalization(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)),
    "efficientnet-lite": Normalization(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
}
"""0 to 255; 0 to 1; -1 to 1; ImageNet's means and deviations (torchvision's, times 255); EfficientNet-lite's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How pictures become a tensor; None is what the model's metadata or datatype says."""

    size: tuple[int, int] | None = None
    """Height and width."""
    layout: str | None = None
    """`nchw` or `nhwc`."""
    normalization: Normalization | None = None
    """0 to 1 for floats, 0 to 255 for integers when None."""

    def __post_init__(self) -> None:
        if self.size is not None and not all(1 <= side <= _MAX_SIDE for side in self.size):
            raise PlanError(f"the image size must be 1 to {_MAX_SIDE} a side, not {self.size[0]}x{self.size[1]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """The tensor that a model takes a picture as."""

    channels_first: bool
    channels: int
    height: int
    width: int


def image_samples(folder: Path, signature: Signature, options: ImageOptions) -> list[Sample]:
    """One sample a .jpg or .png of the folder, by name. Models that take strings get the files as they are."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        raise PlanError(f"{folder}: holds no {', '.join(sorted(_SUFFIXES))}")
    needed = [spec for spec in signature.inputs if not spec.optional]
    if len(needed) != 1:
        raise PlanError(f"model '{signature.model}' needs {len(needed)} inputs; a folder of images fills one")
    spec = needed[0]
    if spec.datatype == "BYTES":
        return [
            Sample(place=str(file), inputs={spec.name: _file(file, len(signature.row_shape(spec)))}) for file in files
        ]
    form = _form(signature, spec, options)
    normalization = options.normalization
    if normalization is None:
        normalization = NORMALIZATIONS["unit" if numpy_dtype(spec.datatype).kind == "f" else "raw"]
    rank = len(signature.row_shape(spec))
    samples = []
    for file in files:
        pixels = _tensor(_pixels(file, form), form, normalization, spec)
        samples.append(Sample(place=str(file), inputs={spec.name: pixels.reshape((1,) * (rank - 3) + pixels.shape)}))
    return samples


def _form(signature: Signature, spec: InputSpec, options: ImageOptions) -> _Form:
    declared = signature.row_shape(spec)
    # Where no batch axis is known, four sizes have one all the same.
    sizes = declared[1:] if len(declared) == 4 and declared[0] in {-1, 1} else declared
    if len(sizes) != 3:
        raise PlanError(f"input '{spec.name}' takes {list(declared)}: an image has three sizes, batch axis left out")
    first, last = sizes[0] in _CHANNELS, sizes[2] in _CHANNELS
    layout = options.layout
    if layout is None:
        if first == last:
            raise PlanError(f"input '{spec.name}' takes {list(declared)}: say --image-layout nchw or nhwc")
        layout = "nchw" if first else "nhwc"
    channels, height, width = sizes if layout == "nchw" else (sizes[2], sizes[0], sizes[1])
    if channels == -1:
        channels = 3
    if channels not in _CHANNELS:
        raise PlanError(f"input '{spec.name}' takes {list(declared)}: {channels} channels, as {layout}, are no image")
    wanted = options.size or (height, width)
    if -1 in wanted:
        raise PlanError(f"input '{spec.name}' leaves its size open ({list(declared)}): give --image-size HxW")
    return _Form(channels_first=layout == "nchw", channels=channels, height=wanted[0], width=wanted[1])


def _pixels(file: Path, form: _Form) -> Array:
    try:
        from PIL import Image, ImageOps  # noqa: PLC0415 - an extra
    except ImportError:
        raise PlanError("images need Pillow: pip install 'erg[loadtest]'") from None
    try:
        with Image.open(file) as image:
            picture: Any = ImageOps.exif_transpose(image).convert(_CHANNELS[form.channels])
            # As large as fits in the middle: stretching would show the model shapes that it never saw.
            fitted = ImageOps.fit(picture, (form.width, form.height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PlanError(f"{file}: not an image that can be read ({error})") from None
    return np.asarray(fitted).reshape(form.height, form.width, form.channels)


def _tensor(pixels: Array, form: _Form, normalization: Normalization, spec: InputSpec) -> Array:
    dtype = numpy_dtype(spec.datatype)
    values = (pixels - np.array(normalization.mean[: form.channels])) / np.array(normalization.std[: form.channels])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    held: Array = values.astype(dtype)
    return held.transpose(2, 0, 1) if form.channels_first else held


def _file(file: Path, rank: int) -> Array:
    content = np.empty((), dtype=object)
    content[()] = file.read_bytes()
    return content.reshape((1,) * rank)


def parse_size(text: str) -> tuple[int, int]:
    """`224x320` as height and width."""
    height, separator, width = text.lower().partition("x")
    if not separator or not all(side.isascii() and side.isdecimal() and len(side) <= 5 for side in (height, width)):
        raise PlanError(f"--image-size '{text}': write HEIGHTxWIDTH, for instance 224x224")
    return int(height), int(width)


def parse_normalization(text: str) -> Normalization:
    """A preset's name, or `MEAN/STD` of pixels from 0 to 255, each one number or one a channel: `127.5/127.5`."""
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    mean, separator, std = text.partition("/")
    try:
        if separator:
            return Normalization(mean=_triple(mean), std=_triple(std))
    except ValueError:
        pass
    raise PlanError(
        f"--image-normalization '{text}': give {', '.join(NORMALIZATIONS)}, or MEAN/STD of pixels from 0 to 255, "
        "for instance 123.7,116.3,103.5/58.4,57.1,57.4"
    )


def _triple(text: str) -> Triple:
    values = [float(part) for part in text.split(",")]
    if len(values) == 1:
        values *= 3
    first, second, third = values
    return first, second, third
