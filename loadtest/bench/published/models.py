"""The models of the published benchmark: what goes in, what is compared, and where their files are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from erg_loadtest.payloads import Payload, build_payload
from erg_loadtest.tensors import Array, InputSpec, Signature, numpy_dtype

DISTINCT = 32
"""Different requests that are sent in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """One model; `inputs` have the shapes of one row as it is sent, batch axis left out."""

    name: str
    title: str
    inputs: tuple[InputSpec, ...]
    output: str
    output_shape: tuple[int, ...]
    recipe: str | None = None
    """What builds it; None for the one that the benchmark writes itself."""
    packages: tuple[str, ...] = ()
    length: int = 0
    """What the raw loop makes of open sizes."""
    load_flags: tuple[str, ...] = ()
    """`--range` flags for `erg load`."""


MODELS = (
    BenchModel(
        name="mlp",
        title="Tiny MLP, fp32[16]: what serving alone costs",
        inputs=(InputSpec(name="x", datatype="FP32", shape=(16,)),),
        output="y",
        output_shape=(16,),
    ),
    BenchModel(
        name="minilm",
        title="MiniLM-L6, fp32, 32 tokens",
        inputs=(
            InputSpec(name="input_ids", datatype="INT64", shape=(32,)),
            InputSpec(name="attention_mask", datatype="INT64", shape=(32,)),
        ),
        output="sentence_embedding",
        output_shape=(384,),
        recipe="converters/recipes/minilm.toml",
        length=32,
        load_flags=("--range", "input_ids:1000:29000", "--range", "attention_mask:1:1"),
    ),
    BenchModel(
        name="efficientnet_lite0",
        title="EfficientNet-lite0, fp32, 224 × 224",  # noqa: RUF001
        inputs=(InputSpec(name="image", datatype="FP32", shape=(3, 224, 224)),),
        output="output",
        output_shape=(1000,),
        recipe="converters/recipes/efficientnet_lite0.toml",
    ),
)


def rows_of(model: BenchModel) -> list[dict[str, Array]]:
    """The inputs of every distinct request, each of one row with its batch axis; the same in every run."""
    return [
        {spec.name: _values(spec, np.random.default_rng(seed))[np.newaxis] for spec in model.inputs}
        for seed in range(DISTINCT)
    ]


def grpc_payloads(model: BenchModel) -> tuple[Payload, ...]:
    """What every v2 server is sent."""
    signature = Signature(model=model.name, version="", max_batch_size=0, inputs=model.inputs)
    return tuple(build_payload(signature, row, rows=1) for row in rows_of(model))


def raw_bodies(model: BenchModel) -> tuple[bytes, ...]:
    """What Mosec is sent: the tensors' bytes one behind the other, in the order of the inputs."""
    return tuple(b"".join(row[spec.name].tobytes() for spec in model.inputs) for row in rows_of(model))


def newest_version(repository: Path, model: str) -> Path | None:
    """The folder of the model's newest version, None where it has none."""
    folder = repository / model
    versions = [int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return folder / str(max(versions)) if versions else None


def converted_artifact(version: Path) -> str | None:
    """The name of the artifact that won on a CPU; None where the plain model is the one that is served."""
    manifest = version / "manifest.json"
    if not manifest.is_file():
        return None
    document = json.loads(manifest.read_text(encoding="utf-8"))
    files = {artifact["name"]: artifact["file"] for artifact in document.get("artifacts", ())}
    for selected in document.get("selected", ()):
        if selected["device"] == "cpu":
            return None if files[selected["artifact"]] == "model.onnx" else str(selected["artifact"])
    return None


def _values(spec: InputSpec, generator: np.random.Generator) -> Array:
    if "mask" in spec.name:
        return np.ones(spec.shape, dtype=numpy_dtype(spec.datatype))
    if spec.datatype == "INT64":
        return generator.integers(1000, 29_000, size=spec.shape)
    return generator.standard_normal(size=spec.shape, dtype=np.float32)
