"""What to send: random tensors of a model's signature, in fixed or mixed shapes, made once and repeated by a seed."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from erg_loadtest.errors import PlanError
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.tensors import Array, InputSpec, Signature, numpy_dtype

_DIM = re.compile(r"^(\d+)(?:\.\.(\d+))?$")
_DEFAULT_HIGH = 100
_MAX_ELEMENTS = 1 << 28


@dataclass(frozen=True, slots=True, order=True)
class Dim:
    """A size, or an inclusive range from which each request draws one."""

    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A part of the requests and the shapes that these have."""

    weight: float
    """In proportion to the others'."""
    shapes: Mapping[str, tuple[Dim, ...]]
    """As `RandomScenario.shapes`, which fills in for inputs that are not named here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomScenario:
    """Random values for a model's inputs.

    Dimensions written as the same range draw the same size within one request: `ids:5..128` and `mask:5..128` always
    agree, as a tokenizer's outputs do.
    """

    batch_size: int = 1
    distinct: int = 64
    """How many different requests to prepare; sent in turn."""
    seed: int = 0
    shapes: Mapping[str, tuple[Dim, ...]] = field(default_factory=dict)
    """By input, without the batch axis; needed where the model leaves a size open."""
    mixes: tuple[Mix, ...] = ()
    """Different shapes in given proportions; the prepared requests hold them exactly, in an order by the seed."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By input, the lowest and highest value, both included."""
    omit: frozenset[str] = frozenset()
    """Inputs not to send: optional ones that the server fills in."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise PlanError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.distinct < 1:
            raise PlanError(f"at least one request must be prepared, not {self.distinct}")

    def payloads(self, signature: Signature) -> list[Payload]:
        """The prepared requests."""
        variants = [{**self.shapes, **mix.shapes} for mix in self.mixes] or [{**self.shapes}]
        for shapes in variants:
            self._check(signature, shapes)
        sizes = random.Random(self.seed)  # noqa: S311 - test data
        values = np.random.default_rng(self.seed)
        counts = apportion([mix.weight for mix in self.mixes] or [1.0], self.distinct)
        if 0 in counts:
            raise PlanError(
                f"{self.distinct} prepared requests leave none for a part of the mix: raise --distinct, "
                "or give the part more weight"
            )
        turns = [shapes for shapes, count in zip(variants, counts, strict=True) for _ in range(count)]
        if self.mixes:
            sizes.shuffle(turns)
        return [self._payload(signature, shapes, sizes, values) for shapes in turns]

    def _payload(
        self,
        signature: Signature,
        shapes: Mapping[str, tuple[Dim, ...]],
        sizes: random.Random,
        values: np.random.Generator,
    ) -> Payload:
        drawn: dict[Dim, int] = {}
        tensors: dict[str, Array] = {}
        for spec in signature.inputs:
            if spec.name in self.omit:
                continue
            shape = self._shape(signature, spec, shapes.get(spec.name), sizes, drawn)
            tensors[spec.name] = random_values(spec, shape, values, self.ranges.get(spec.name))
        return build_payload(signature, tensors, rows=self.batch_size)

    def _shape(
        self,
        signature: Signature,
        spec: InputSpec,
        dims: tuple[Dim, ...] | None,
        sizes: random.Random,
        drawn: dict[Dim, int],
    ) -> tuple[int, ...]:
        batched = signature.max_batch_size > 0
        if dims is None:
            dims = tuple(Dim(size, size) for size in signature.row_shape(spec))
        for dim in dims:
            if dim not in drawn:
                drawn[dim] = sizes.randint(dim.low, dim.high)
        return ((self.batch_size,) if batched else ()) + tuple(drawn[dim] for dim in dims)

    def _check(self, signature: Signature, shapes: Mapping[str, tuple[Dim, ...]]) -> None:
        for name in (*shapes, *self.ranges, *sorted(self.omit)):
            signature.input(name)
        if self.batch_size > max(1, signature.max_batch_size):
            raise PlanError(
                f"batch size {self.batch_size}: model '{signature.model}' takes at most "
                f"{max(1, signature.max_batch_size)} rows a request"
            )
        for spec in signature.inputs:
            if spec.name not in self.omit:
                self._check_shape(signature.row_shape(spec), spec, shapes.get(spec.name))

    def _check_shape(self, declared: Sequence[int], spec: InputSpec, dims: tuple[Dim, ...] | None) -> None:
        if dims is None:
            if -1 in declared:
                example = ",".join("8" if size == -1 else str(size) for size in declared)
                raise PlanError(
                    f"input '{spec.name}' leaves sizes open ({list(declared)}); "
                    f"give them, for instance --shape {spec.name}:{example}"
                )
            return
        fits = len(dims) == len(declared) and all(
            size == -1 or dim == Dim(size, size) for dim, size in zip(dims, declared, strict=True)
        )
        if not fits:
            raise PlanError(
                f"--shape for '{spec.name}' does not fit {list(declared)}, its declared sizes without the batch axis"
            )


def apportion(weights: Sequence[float], total: int) -> list[int]:
    """`total` in proportion to the weights, by largest remainders (Hamilton's method)."""
    exact = [weight * total / sum(weights) for weight in weights]
    counts = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def random_values(
    spec: InputSpec,
    shape: Sequence[int],
    generator: np.random.Generator,
    bounds: tuple[float, float] | None = None,
) -> Array:
    """Random values of an input's datatype; small non-negative integers unless bounds say otherwise."""
    count = int(np.prod(shape, dtype=np.float64))
    if count > _MAX_ELEMENTS:
        raise PlanError(f"input '{spec.name}' of shape {list(shape)} is larger than a request can be")
    dtype = numpy_dtype(spec.datatype)
    if spec.datatype == "BYTES":
        words = np.empty(count, dtype=object)
        words[:] = [b"%08x" % number for number in generator.integers(0, 1 << 32, size=count)]
        return words.reshape(shape)
    if spec.datatype == "BOOL":
        return generator.integers(0, 2, size=shape).astype(dtype)
    low, high = bounds or (0, _DEFAULT_HIGH - 1 if dtype.kind in "iu" else 1)
    if dtype.kind in "iu":
        return generator.integers(int(low), int(high), size=shape, dtype=np.int64, endpoint=True).astype(dtype)
    return (generator.random(size=shape) * (high - low) + low).astype(dtype)


def parse_shape(text: str, flag: str = "--shape") -> tuple[str, tuple[Dim, ...]]:
    """`NAME:8,5..128` as an input's name and sizes; `NAME:` means no axis beside the batch's."""
    name, separator, sizes = text.rpartition(":")
    if not separator or not name:
        raise PlanError(f"{flag} '{text}': write NAME:SIZE[,SIZE...], a SIZE being 8 or 5..128")
    return name, tuple(_parse_dim(size, f"{flag} '{text}'") for size in sizes.split(",") if size)


def parse_mix(text: str) -> Mix:
    """`0.7=ids:16;mask:16` as a weight and shapes."""
    weight, separator, shapes = text.partition("=")
    try:
        value = float(weight) if separator else math.nan
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise PlanError(f"--mix '{text}': write WEIGHT=NAME:SIZES[;NAME:SIZES...], for instance 0.7=ids:16;mask:16")
    return Mix(weight=value, shapes=dict(parse_shape(shape, "--mix") for shape in shapes.split(";")))


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """`NAME:LOW:HIGH` as an input's name and the bounds of its values, both included."""
    parts = text.rsplit(":", 2)
    try:
        name, low, high = parts[0], float(parts[1]), float(parts[2])
    except (IndexError, ValueError):
        raise PlanError(f"--range '{text}': write NAME:LOW:HIGH, for instance input_ids:0:29999") from None
    if not low <= high:
        raise PlanError(f"--range '{text}': the lowest value is above the highest")
    return name, (low, high)


def _parse_dim(size: str, where: str) -> Dim:
    match = _DIM.match(size.strip())
    if match is None:
        raise PlanError(f"{where}: '{size}' is neither a size (8) nor a range (5..128)")
    low = int(match[1])
    high = int(match[2]) if match[2] else low
    if low > high:
        raise PlanError(f"{where}: the range '{size}' runs backwards")
    return Dim(low, high)
