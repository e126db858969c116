"""Which layers to leave in floating point: measured layer by layer, then as few as reach the accuracy asked for.

The method is partial quantization of Wu, Judd, Zhang, Isaev and Micikevicius, "Integer Quantization for Deep Learning
Inference: Principles and Empirical Evaluation" (arXiv:2004.09602, section 5.2): quantize one layer at a time, rank,
keep the most sensitive. Here layers are ranked by what they lose for what they cost, so that a large layer is not kept
where two small ones would do, and layers that read the same tensor go together: they share its quantized form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx

from erg_converters.errors import PassError
from erg_converters.passes.layers import Layer, layers_of, named

if TYPE_CHECKING:
    import onnxruntime

    from erg_converters.passes.base import PassContext
    from erg_converters.sources.base import Array, Feed

QUICK_SAMPLES = 32
"""Samples behind each layer's own figure. The figures only rank; what is chosen is measured with all samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers that are kept or quantized together, and the multiplications they take of one sample."""

    names: tuple[str, ...]
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What to keep in floating point, the mean cosine then measured, and the share of multiplications kept."""

    names: frozenset[str]
    cosine: float
    share: float


Measure = Callable[[frozenset[str], bool], float]
"""Mean cosine with the source of the model that keeps these layers; True: few samples are enough."""

Quantize = Callable[[frozenset[str], "Sequence[Feed]", Path], None]
"""Writes the model that keeps these layers, calibrated with these samples, to this file."""


def find_kept(
    groups: Sequence[Group],
    measure: Measure,
    target: float,
    resume: MutableMapping[str, Any],
    progress: Callable[[int, int], None],
) -> Kept:
    """The fewest of the ranked layers whose keeping reaches a mean cosine of `target`.

    Every figure goes into `resume` when it is found and is not measured again. The number to keep is found by
    bisection: keeping more of the ranked layers is taken to lose no more.

    Raises:
        PassError: the target is out of reach unless nothing is quantized.
    """
    steps = 1 + len(groups) + max(1, math.ceil(math.log2(max(len(groups), 2))))
    done = 0

    def known(key: str, kept: frozenset[str], quick: bool) -> float:
        nonlocal done
        if key not in resume:
            resume[key] = measure(kept, quick)
        done = min(done + 1, steps)
        progress(done, steps)
        return float(resume[key])

    every = frozenset(name for group in groups for name in group.names)
    whole = known("cosine, all quantized", frozenset(), False)
    if whole >= target:
        return Kept(names=frozenset(), cosine=whole, share=0.0)
    total = sum(group.macs for group in groups)

    def loss_for_cost(group: Group) -> float:
        cosine = known(f"cosine, only {group.names[0]} quantized", every - set(group.names), True)
        return (1 - cosine) * total / max(group.macs, 1)

    # Sorted keeps the graph's order among equals, so that a second run keeps the same layers.
    ranked = sorted(groups, key=loss_for_cost, reverse=True)
    low, high, cosine = 0, len(ranked), 1.0
    while high - low > 1:
        middle = (low + high) // 2
        kept = frozenset(name for group in ranked[:middle] for name in group.names)
        found = known(f"cosine, {middle} kept", kept, False)
        low, high, cosine = (low, middle, found) if found >= target else (middle, high, cosine)
    if high == len(ranked):
        raise PassError(
            f"sensitivity_target {target:g} is out of reach: all layers quantized give {whole:.5f}, and too "
            f"little with {low} of {len(ranked)} groups of layers kept; ask for less, or "
            "use bf16 (precision of the candidate)"
        )
    progress(steps, steps)
    return Kept(
        names=frozenset(name for group in ranked[:high] for name in group.names),
        cosine=cosine,
        share=sum(group.macs for group in ranked[:high]) / max(total, 1),
    )


class KeepSettings(Protocol):
    """The settings that passes with kept layers have in common."""

    @property
    def keep_layers(self) -> tuple[str, ...]:
        """Names or globs."""

    @property
    def sensitivity_target(self) -> float:
        """Mean cosine to reach; 0: keep nothing for it."""


class Comparison:
    """Runs files on samples and compares what they give with what `model` gave."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._expected = _answers(model.SerializeToString(), feeds)

    def cosine(self, path: Path, samples: int) -> float:
        """Mean over the first `samples` samples, and over the outputs, of the cosine of the whole output."""
        got = _answers(path.read_bytes(), self._feeds[:samples])
        return float(
            np.mean(
                [
                    _cosine(a, b)
                    for one, other in zip(got, self._expected, strict=False)
                    for a, b in zip(one, other, strict=True)
                ]
            )
        )


def groups_of(model: onnx.ModelProto, layers: Sequence[Layer], feed: Feed) -> tuple[Group, ...]:
    """The layers that read one tensor, together; multiplications as `feed` causes them."""
    sizes = _sizes(model, [layer.gives for layer in layers], feed)
    together: dict[str, list[Layer]] = {}
    for layer in layers:
        together.setdefault(layer.reads, []).append(layer)
    return tuple(
        Group(
            names=tuple(layer.name for layer in group),
            macs=sum(layer.macs_per_output * sizes[layer.gives] for layer in group),
        )
        for group in together.values()
    )


def choose_kept(
    model: onnx.ModelProto,
    settings: KeepSettings,
    feeds: Sequence[Feed],
    quantize: Quantize,
    *,
    context: PassContext,
    figures: MutableMapping[str, str],
) -> frozenset[str]:
    """The nodes that `keep_layers` names and, where a target is set, the layers kept besides to reach it on `feeds`.

    Raises:
        PassError: a name is of nothing, there is nothing left to quantize, or the target is out of reach.
    """
    kept = named(model, settings.keep_layers)
    layers = [layer for layer in layers_of(model) if layer.name not in kept]
    if not layers:
        raise PassError(
            "there is no layer to quantize: no MatMul, Gemm or Conv with a constant weight that is not kept"
        )
    if not settings.sensitivity_target:
        return kept
    comparison = Comparison(model, feeds)
    tried = context.folder / "tried.onnx"

    def measure(names: frozenset[str], quick: bool) -> float:
        count = min(QUICK_SAMPLES, len(feeds)) if quick else len(feeds)
        quantize(kept | names, feeds[:count], tried)
        return comparison.cosine(tried, count)

    found = find_kept(
        groups_of(model, layers, feeds[0]), measure, settings.sensitivity_target, context.resume, context.progress
    )
    tried.unlink(missing_ok=True)
    figures["kept for accuracy"] = ", ".join(sorted(found.names)) or "none"
    figures["kept share of multiplications"] = f"{found.share:.3f}"
    figures["cosine on calibration data"] = f"{found.cosine:.5f}"
    return kept | found.names


def _session(data: bytes) -> onnxruntime.InferenceSession:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _answers(data: bytes, feeds: Sequence[Feed]) -> list[list[Array]]:
    session = _session(data)
    return [session.run(None, dict(feed)) for feed in feeds]


def _sizes(model: onnx.ModelProto, tensors: Sequence[str], feed: Feed) -> Mapping[str, int]:
    """How many elements each tensor has when the model runs on `feed`."""
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    outputs = {value.name for value in open_model.graph.output}
    for name in dict.fromkeys(tensors):
        if name not in outputs:
            open_model.graph.output.append(onnx.ValueInfoProto(name=name))
    session = _session(open_model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return {name: int(array.size) for name, array in zip(names, session.run(names, dict(feed)), strict=True)}


def _cosine(one: Array, other: Array) -> float:
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    if a.size != b.size or not np.isfinite(a).all():
        return -1.0
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b / norms) if norms else float(np.array_equal(a, b))
