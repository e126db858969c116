"""Runs a pass over a tiny model, and the result in the backends' libraries."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from erg_converters.artifact import Artifact, Format
from erg_converters.data import Dataset
from erg_converters.passes.base import Pass, PassContext
from erg_converters.sources.base import Feed, InputSpec

from tests.converters import builders

TOKEN_INPUTS = tuple(
    InputSpec(name=name, datatype="INT64", dims=(-1, -1), axes=("batch", "length"))
    for name in ("input_ids", "attention_mask")
)
IMAGE_INPUTS = (InputSpec(name="image", datatype="FP32", dims=(-1, 3, 16, 16), axes=("batch",)),)


def dataset(samples: Sequence[Feed]) -> Dataset:
    return Dataset(name="samples", samples=tuple(samples), labels=None, sha256="0" * 64)


def sentences(count: int = 8, seed: int = 100) -> Dataset:
    """Of lengths from 4 on, so that no two neighbours have one shape."""
    return dataset([builders.tokens(1, 4 + index % 5, seed + index) for index in range(count)])


def pictures(count: int = 8) -> Dataset:
    return dataset([builders.images(1, 100 + index) for index in range(count)])


def run(
    made: Pass[Any],
    path: Path,
    folder: Path,
    *,
    calibration: Dataset | None = None,
    inputs: tuple[InputSpec, ...] = TOKEN_INPUTS,
    resume: MutableMapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Artifact:
    context = PassContext(
        source=cast("Any", None),
        inputs=inputs,
        folder=folder / "work",
        calibration=calibration,
        progress=progress,
        resume={} if resume is None else resume,
    )
    return made.run(Artifact.of(Format.ONNX, path), context)


def by_onnxruntime(path: Path, feed: Feed) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    answer: npt.NDArray[np.float32] = session.run(None, dict(feed))[0]
    return answer


def by_openvino(path: Path, feed: Feed) -> npt.NDArray[np.float32]:
    from erg_server.backends.openvino_library import new_core

    compiled = new_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answer: npt.NDArray[np.float32] = compiled(dict(feed))[0]
    return answer


RUNNERS = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}


def cosine(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    assert one.shape == other.shape
    a, b = one.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


def layer_names(path: Path) -> list[str]:
    """The layers of a canonical file, in the graph's order."""
    model = onnx.load(str(path))
    weights = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in {"MatMul", "Gemm", "Conv"} and node.input[1] in weights
    ]
