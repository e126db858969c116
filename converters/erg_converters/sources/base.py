"""What every source of a trained model offers: inputs, an answer of its own, and a module or a file to start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from erg_server.datatype import DataType

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Feed = Mapping[str, Array]
"""Arrays by input name, each with its batch axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input. `dims` has the batch axis first and -1 for dynamic axes; `axes` names those, in order.

    Dynamic axes of one name have one size in a feed. Values are drawn below `high` where random inputs are made of a
    datatype of whole numbers; of an FP datatype they are standard normal.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    axes: tuple[str, ...] = ()
    pad_value: float = 0.0
    high: int = 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of its arrays."""
        return DataType.parse(self.datatype).numpy

    @property
    def dynamic(self) -> dict[int, str]:
        """Position of each dynamic axis to its name."""
        positions = [position for position, size in enumerate(self.dims) if size == -1]
        return dict(zip(positions, self.axes, strict=True))


class Source(Protocol):
    """A trained model, loaded; `kind`, `location` and `license` go into the manifest."""

    @property
    def kind(self) -> str:
        """transformers, torch or onnx."""

    @property
    def location(self) -> str:
        """Where it came from, as the recipe has it."""

    @property
    def license(self) -> str:
        """Its licence, as the recipe has it."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs' names, in the order in which `run` gives them."""

    @property
    def max_sizes(self) -> Mapping[str, int]:
        """Largest size of a dynamic axis by its name, where the model has a limit."""

    def digest(self) -> str:
        """SHA-256, hex, of everything that decides what the model computes."""

    def input_specs(self) -> tuple[InputSpec, ...]:
        """The inputs, in order."""

    def file(self) -> Path | None:
        """The ONNX file of a source that is one; None where there is a module to export."""

    def module(self) -> torch.nn.Module:
        """The module to export, in evaluation mode, taking the inputs in order; SourceError where `file` is one."""

    def run(self, feed: Feed) -> list[Array]:
        """The source's own answer, by PyTorch or ONNX Runtime; for export parity."""


def named_axes(name: str, datatype: str, dims: tuple[int, ...], stated: Mapping[int, str]) -> tuple[str, ...]:
    """Names for the dynamic axes of an input: those `stated` by position, "batch", "length" of tokens, or made up."""
    names: list[str] = []
    for position, size in enumerate(dims):
        if size != -1:
            continue
        usual = f"{name}_{position}"
        if position == 0:
            usual = "batch"
        elif position == 1 and len(dims) == 2 and datatype in {"INT32", "INT64"}:
            usual = "length"
        names.append(stated.get(position) or usual)
    return tuple(names)


def random_feed(specs: tuple[InputSpec, ...], sizes: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Random inputs; `sizes` gives the dynamic axes by name, 1 where it lacks one.

    An input called attention_mask gets ones with a tail of zeros, of at least one 1 a row: other masks no tokenizer
    makes.
    """
    random = np.random.default_rng(seed)
    feed: dict[str, Array] = {}
    for spec in specs:
        names = spec.dynamic
        shape = tuple(sizes.get(names[i], 1) if i in names else size for i, size in enumerate(spec.dims))
        if spec.name == "attention_mask" and len(shape) == 2:
            real = random.integers(1, shape[1] + 1, (shape[0], 1))
            feed[spec.name] = (np.arange(shape[1]) < real).astype(spec.dtype)
        elif spec.dtype.kind == "f":
            feed[spec.name] = random.standard_normal(shape).astype(spec.dtype)
        else:
            feed[spec.name] = random.integers(0, spec.high, shape).astype(spec.dtype)
    return feed
