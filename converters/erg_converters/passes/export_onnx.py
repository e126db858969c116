"""Export an encoder to plain fp32 ONNX with dynamic batch and length, and prove it computes what PyTorch does.

The exporter is PyTorch's own (torch.onnx.export, https://pytorch.org/docs/stable/onnx.html). Mean pooling over the real
tokens and L2 normalisation, which sentence embeddings end in (Reimers and Gurevych, "Sentence-BERT", 2019), are part of
the graph, so that a server's answer is small and every client gets the same one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from erg_converters.errors import ConversionError, ParityError
from erg_converters.recipe import ExportSettings, GateSettings
from erg_converters.sources.transformers import TransformersModel

INPUTS = ("input_ids", "attention_mask")
SHAPES = ((1, 2), (1, 7), (1, 32), (2, 19), (5, 64), (8, 128), (3, 128))
"""Batch and length of the comparisons: one row, lengths the export never saw, and the largest served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far the export is from its source, over every shape: the worst element and the worst row."""

    max_absolute_difference: float
    min_cosine: float
    samples: int


class SentenceEncoder(torch.nn.Module):  # type: ignore[misc]  # PyTorch is read untyped: its checking takes minutes
    """Input ids and mask, int64 [batch, length], to embeddings fp32 [batch, hidden] of length 1."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Mean over the real tokens, normalised."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, p=2.0, dim=1)


class TokenEncoder(torch.nn.Module):  # type: ignore[misc]
    """Input ids and mask, int64 [batch, length], to the last hidden state, fp32 [batch, length, hidden]."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The encoder's own output."""
        hidden: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def wrap(model: TransformersModel, settings: ExportSettings) -> tuple[torch.nn.Module, str]:
    """The module to export and the name of its output."""
    if settings.task == "sentence-embedding":
        return SentenceEncoder(model.module).eval(), "sentence_embedding"
    return TokenEncoder(model.module).eval(), "last_hidden_state"


def export(model: TransformersModel, settings: ExportSettings, path: Path) -> None:
    """Write the ONNX file, one file with its weights inside.

    Raises:
        ConversionError: the exporter fails; its own words are in the message.
    """
    module, output = wrap(model, settings)
    example = (torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 16, dtype=torch.int64))
    batch = torch.export.Dim("batch", min=1)
    # At least 2: the exporter turns an axis of size 1 into a constant.
    length = torch.export.Dim("length", min=2, max=model.max_length)
    dynamic = {name: {0: batch, 1: length} for name in INPUTS}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, example, str(path), input_names=list(INPUTS), output_names=[output],
                opset_version=settings.opset, dynamo=True, dynamic_shapes=dynamic, external_data=False, verbose=False,
            )  # fmt: skip
    except Exception as error:
        raise ConversionError(f"torch.onnx.export failed: {error}") from error


def check_parity(
    model: TransformersModel,
    settings: ExportSettings,
    path: Path,
    gate: GateSettings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Parity:
    """Compare the ONNX file, run by ONNX Runtime, with the source, run by PyTorch, over random tokens and masks.

    Raises:
        ParityError: a bound of the gate is broken, or an output is not finite; the message says where.
    """
    module, _ = wrap(model, settings)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst, cosine = 0.0, 1.0
    for number, (ids, mask) in enumerate(_samples(model.vocabulary, model.max_length)):
        progress(number, len(SHAPES))
        with torch.no_grad():
            expected = module(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        got = session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))[0]
        if got.shape != expected.shape or not np.isfinite(got).all():
            raise ParityError(f"at shape {ids.shape} the export gives {got.shape}, or values that are not finite")
        worst = max(worst, float(np.abs(got - expected).max()))
        cosine = min(cosine, _min_cosine(got, expected))
        if worst > gate.max_absolute_difference or cosine < gate.min_cosine:
            raise ParityError(
                f"at shape {ids.shape} the export differs from PyTorch by {worst:.3g} (allowed "
                f"{gate.max_absolute_difference:.3g}), cosine {cosine:.6f} (at least {gate.min_cosine})"
            )
    progress(len(SHAPES), len(SHAPES))
    return Parity(max_absolute_difference=worst, min_cosine=cosine, samples=len(SHAPES))


def _samples(vocabulary: int, max_length: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    random = np.random.default_rng(0)
    for batch, length in SHAPES:
        size = min(length, max_length)
        ids = random.integers(0, vocabulary, (batch, size), dtype=np.int64)
        real = random.integers(1, size + 1, batch)
        yield ids, (np.arange(size) < real[:, None]).astype(np.int64)


def _min_cosine(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    rows, others = one.reshape(-1, one.shape[-1]).astype(np.float64), other.reshape(-1, other.shape[-1])
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    return float(((rows * others).sum(1) / np.maximum(norms, 1e-12)).min())
