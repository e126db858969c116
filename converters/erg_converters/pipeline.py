"""Runs a recipe: source, export, proof, publication. Nothing reaches the repository before the last step."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
import transformers
from erg_server import __version__
from erg_server.repository.manifest import Golden, Manifest, PassRecord, Source
from erg_server.repository.publication import publish
from erg_server.tensor import Tensor
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from erg_converters.passes import export_onnx
from erg_converters.recipe import Recipe
from erg_converters.sources.transformers import TransformersModel, load_encoder


@dataclass(slots=True)
class Report:
    """What each step took and found, in order."""

    steps: list[tuple[str, float, str]] = field(default_factory=list)
    version: int = 0
    path: Path = Path()


class Steps:
    """Shows each step with its clock while it runs, and keeps what it found."""

    def __init__(self, console: Console) -> None:
        self.report = Report()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            console=console,
        )

    @contextmanager
    def step(self, name: str) -> Iterator[_Step]:
        """Run one step under its own bar."""
        began_s = time.monotonic()
        current = _Step(self.progress, self.progress.add_task(name, total=None))
        yield current
        self.progress.update(current.task, total=1, completed=1, description=f"{name}: {current.found}")
        self.report.steps.append((name, time.monotonic() - began_s, current.found))


@dataclass(slots=True)
class _Step:
    progress: Progress
    task: Any
    found: str = "done"

    def advance(self, done: int, total: int) -> None:
        self.progress.update(self.task, completed=done, total=total)


def run_recipe(recipe: Recipe, console: Console) -> Report:
    """Convert and publish; raises ErgError with the cause, and leaves the repository as it was then."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    steps = Steps(console)
    with steps.progress, tempfile.TemporaryDirectory(prefix="erg-convert-") as folder:
        file = Path(folder) / "model.onnx"
        with steps.step(f"load {recipe.source.path}") as step:
            model = load_encoder(recipe.source.path)
            parameters = sum(item.numel() for item in model.module.parameters())
            step.found = f"{parameters / 1e6:.1f} M parameters"
        with steps.step("export to ONNX") as step:
            began_s = time.monotonic()
            export_onnx.export(model, recipe.export, file)
            onnx.checker.check_model(str(file))
            seconds = time.monotonic() - began_s
            step.found = f"{file.stat().st_size / 1e6:.1f} MB, opset {recipe.export.opset}"
        with steps.step("compare with PyTorch") as step:
            parity = export_onnx.check_parity(model, recipe.export, file, recipe.gate, step.advance)
            step.found = (
                f"largest difference {parity.max_absolute_difference:.2g}, smallest cosine {parity.min_cosine:.7f} "
                f"over {parity.samples} shapes"
            )
        with steps.step(f"publish {recipe.publish.name}") as step:
            manifest = _manifest(recipe, model, parity, seconds, _golden(file, model))
            root = Path(recipe.publish.repository)
            root.mkdir(parents=True, exist_ok=True)
            steps.report.version = publish(root, recipe.publish.name, Path(folder), manifest)
            steps.report.path = root / recipe.publish.name / str(steps.report.version)
            step.found = f"version {steps.report.version}"
    return steps.report


def _golden(file: Path, model: TransformersModel) -> Golden:
    """Two rows that a server must reproduce before the version may serve."""
    random = np.random.default_rng(1)
    ids = random.integers(0, model.vocabulary, (2, 12), dtype=np.int64)
    mask = np.ones_like(ids)
    mask[1, 8:] = 0
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_outputs()]
    outputs = session.run(names, dict(zip(export_onnx.INPUTS, (ids, mask), strict=True)))
    return Golden(
        inputs=tuple(Tensor.from_numpy(n, a) for n, a in zip(export_onnx.INPUTS, (ids, mask), strict=True)),
        outputs=tuple(Tensor.from_numpy(name, array) for name, array in zip(names, outputs, strict=True)),
    )


def _manifest(
    recipe: Recipe, model: TransformersModel, parity: export_onnx.Parity, seconds: float, golden: Golden
) -> Manifest:
    tools = {"torch": torch.__version__, "transformers": transformers.__version__, "onnx": onnx.__version__}
    export = PassRecord(
        name="export_onnx",
        settings={
            "task": recipe.export.task,
            "opset": str(recipe.export.opset),
            "max_absolute_difference": f"{parity.max_absolute_difference:.3g}",
            "min_cosine": f"{parity.min_cosine:.8f}",
        },
        tools=tools,
        seconds=seconds,
    )
    return Manifest(
        model=recipe.publish.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        erg_version=__version__,
        recipe_sha256=recipe.sha256,
        source=Source(
            kind=recipe.source.kind,
            location=recipe.source.path,
            sha256=model.sha256,
            license=recipe.source.license,
        ),
        passes=(export,),
        golden=golden,
    )
