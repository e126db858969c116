"""The tables of a recipe. What each key means stands beside it, and `erg convert explain` prints it from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as key
from pathlib import Path
from typing import Any, Literal

from erg_converters.tables import Lines, Place, doc

SourceKind = Literal["transformers", "torch", "onnx"]
Task = Literal["", "sentence-embedding", "feature-extraction"]
DataKind = Literal["npz", "jsonl", "images", "python", "random"]
Precision = Literal["f32", "bf16", "f16"]
MetricName = Literal["cosine", "spearman", "top1", "agreement", "max_difference"]
Rule = Literal["cheapest", "most_accurate"]

SOURCE_CANDIDATE = "source"
"""The name of the candidate that is always there: the source as plain fp32 ONNX in ONNX Runtime, the yardstick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """[source]: the trained model."""

    path: str = key(
        default="",
        metadata=doc(
            "a folder or file, relative to the recipe, or package:NAME/INSIDE of an installed package; for "
            "transformers also a hub's ORGANISATION/NAME, fetched only where HF_HUB_OFFLINE is not set; "
            "for torch the checkpoint that the factory is given, if it takes one"
        ),
    )
    kind: SourceKind = key(
        default="transformers",
        metadata=doc(
            "transformers: a folder with config.json and *.safetensors, whose own code is never run; torch: a module "
            "that a factory builds; onnx: an ONNX file, checked before anything loads it"
        ),
    )
    factory: str = key(
        default="",
        metadata=doc(
            "torch: module:function that returns the module; called with source.path if that is stated; the recipe's "
            "folder is importable"
        ),
    )
    weights: str = key(
        default="",
        metadata=doc(
            "torch: a state dict to load into the module: .safetensors, or a checkpoint of nothing but tensors; "
            "a pickled module only with --trust, because loading it runs whatever code is inside"
        ),
    )
    license: str = key(default="", metadata=doc("the source's licence; goes into the published manifest"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """[export]: how the source becomes plain fp32 ONNX, the form that every candidate starts from."""

    task: Task = key(
        default="",
        metadata=doc(
            "what a transformers model's graph ends in: sentence-embedding (mean over the real tokens, of length 1) or "
            "feature-extraction (the last hidden state); empty: sentence-embedding for transformers, nothing otherwise"
        ),
    )
    opset: int = key(default=18, metadata=doc("version of ONNX's standard operators to write", low=18, high=23))
    max_absolute_difference: float = key(
        default=1e-4,
        metadata=doc("largest difference of any output element from the source, over every shape tried", low=0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSettings:
    """[[input]]: one input of the model. Derived for transformers and onnx; to be stated for torch."""

    name: str = key(metadata=doc("the input's name in the served model"))
    datatype: str = key(default="FP32", metadata=doc("the protocol's name: FP32, INT64, UINT8, ..."))
    dims: tuple[int, ...] = key(
        metadata=doc("the shape with the batch axis first; -1 is a dynamic axis, and the batch axis is one", low=-1)
    )
    axes: tuple[str, ...] = key(
        default=(), metadata=doc("names of the dynamic axes in order; inputs that share a name share its size")
    )
    pad_value: float = key(default=0.0, metadata=doc("what fills dynamic axes where samples of a batch differ"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """[calibration] and [evaluation]: samples. They have to be different samples, or the loss is not measured."""

    kind: DataKind = key(
        metadata=doc(
            "npz: arrays by input name, the samples along the first axis, and labels; jsonl: one object a line, "
            "tokenized; images: one sub-folder per label; python: module:function; random: generated, which says how "
            "far outputs move but nothing about a task"
        )
    )
    path: str = key(default="", metadata=doc("file or folder, relative to the recipe, or package:NAME/INSIDE"))
    entry: str = key(
        default="",
        metadata=doc(
            "python: module:function that returns an iterable of samples, each {input: array with batch axis of 1} or "
            "(that, label); the recipe's folder is importable"
        ),
    )
    tokenizer: str = key(default="", metadata=doc("jsonl: folder with tokenizer.json, or that file; package: too"))
    field: str = key(default="text", metadata=doc("jsonl: the key that holds the text"))
    label_field: str = key(default="", metadata=doc("jsonl: the key of the label, a whole number; empty: none"))
    max_length: int = key(default=128, metadata=doc("jsonl: texts are cut to this many tokens", low=1))
    size: tuple[int, int] = key(default=(224, 224), metadata=doc("images: height and width in pixels", low=1))
    mean: tuple[float, ...] = key(
        default=(0.485, 0.456, 0.406), metadata=doc("images: subtracted from each channel, whose values are 0 to 1")
    )
    scale: tuple[float, ...] = key(
        default=(0.229, 0.224, 0.225), metadata=doc("images: then divides each channel; not 0")
    )
    layout: Literal["NCHW", "NHWC"] = key(default="NCHW", metadata=doc("images: where the channels are"))
    samples: int = key(default=128, metadata=doc("how many samples to take; 0: all", low=0))
    skip: int = key(
        default=0,
        metadata=doc("leave out this many first, to calibrate and evaluate on different parts of one file", low=0),
    )
    seed: int = key(default=0, metadata=doc("shuffles the samples before any is taken; -1 keeps their order", low=-1))


@dataclass(frozen=True, slots=True, kw_only=True)
class PassStep:
    """One entry of a candidate's `passes`: a pass's name, and its own settings, which the pass's dataclass checks."""

    name: str
    stated: Mapping[str, Any]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSettings:
    """[[candidate]]: one way to make the model cheaper. All are tried; the gate and the rule choose."""

    name: str = key(metadata=doc(f"names it in reports; '{SOURCE_CANDIDATE}' is taken by the yardstick"))
    backend: str = key(default="onnxruntime", metadata=doc("which backend serves it: onnxruntime or openvino"))
    precision: Precision = key(
        default="f32", metadata=doc("what the backend computes in, of what is not quantized: f32, bf16 or f16")
    )
    passes: tuple[PassStep, ...] = key(
        default=(),
        metadata=doc('the passes after the export, in order: [{ pass = "quantize_static", preset = "mixed" }, ...]'),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """[gate]: what a candidate may lose. One that loses more is refused, with the figure and the bound."""

    metric: MetricName = key(
        default="cosine",
        metadata=doc(
            "cosine: of each output row and the source's; spearman: rank correlation of the rows' pair similarities "
            "with the source's; top1: share of labels hit; agreement: share of rows whose largest element is the "
            "source's; max_difference: largest absolute difference"
        ),
    )
    output: str = key(default="", metadata=doc("the output that the metric looks at; empty: the first"))
    max_drop: float = key(
        default=0.005, metadata=doc("how far the metric may fall, at the far end of the drop's interval", low=0)
    )
    confidence: float = key(default=0.95, metadata=doc("of the drop's interval", low=0.5, high=0.9999))
    resamples: int = key(default=2000, metadata=doc("bootstrap resamples behind it", low=100, high=1_000_000))
    seed: int = key(default=0, metadata=doc("of the resampling", low=0))
    min_cosine: float = key(
        default=0.99, metadata=doc("mean cosine of output rows with the source's, at least", low=-1, high=1)
    )
    batch_tolerance: float = key(
        default=0.999, metadata=doc("cosine of a row alone with the same row inside a batch, at least", low=-1, high=1)
    )
    min_speedup: float = key(
        default=1.05, metadata=doc("CPU time of the source over the candidate's; below it is 'not worth it'", low=0)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """[measure]: on which shapes time is taken, in the backend that serves, interleaved with the source."""

    batch_sizes: tuple[int, ...] = key(default=(1, 8, 32), metadata=doc("rows a call", low=1))
    lengths: tuple[int, ...] = key(
        default=(32, 128), metadata=doc("sizes of the axis named 'length'; without such an axis not used", low=1)
    )
    rounds: int = key(default=7, metadata=doc("every variant is timed once a round; the least counts", low=1))
    threads: int = key(default=1, metadata=doc("threads of the backend", low=1))
    devices: tuple[str, ...] = key(
        default=("cpu",), metadata=doc("target devices: 'cpu', the one that conversions measure")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChooseSettings:
    """[choose]: which of the candidates that pass is published as the winner."""

    rule: Rule = key(
        default="cheapest",
        metadata=doc(
            "cheapest: least CPU time, geometric mean over the measured shapes, within max_drop; most_accurate: least "
            "drop, within max_cost_ratio"
        ),
    )
    max_drop: float = key(default=0.005, metadata=doc("cheapest: largest drop of the metric", low=0))
    max_cost_ratio: float = key(default=1.0, metadata=doc("most_accurate: largest CPU time over the source's", low=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishSettings:
    """[publish]: where the result goes."""

    repository: str = key(metadata=doc("the model repository, relative to the working folder"))
    name: str = key(metadata=doc("the model's name in it"))
    config: str = key(
        default="", metadata=doc("a config.pbtxt to publish, relative to the recipe; empty: written for the model")
    )
    keep_source: bool = key(
        default=True, metadata=doc("publish the plain fp32 ONNX beside the winner, for backends that lack the winner's")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe.

    `path` is the file, and what the recipe names is found from its folder. `sha256` is of the file's bytes, so that a
    published version tells which recipe made it.
    """

    path: Path
    sha256: str
    source: SourceSettings
    publish: PublishSettings
    export: ExportSettings = ExportSettings()
    inputs: tuple[InputSettings, ...] = ()
    calibration: DataSettings | None = None
    evaluation: DataSettings | None = None
    candidates: tuple[CandidateSettings, ...] = ()
    gate: GateSettings = GateSettings()
    measure: MeasureSettings = MeasureSettings()
    choose: ChooseSettings = ChooseSettings()
    lines: Lines = key(default=Lines("", ""), compare=False, repr=False)
    """Finds keys in the file, for messages."""

    def place(self, table: str) -> Place:
        """Where a table stands."""
        return Place(lines=self.lines, table=table)

    @property
    def folder(self) -> Path:
        """What the recipe's relative paths start from."""
        return self.path.parent
