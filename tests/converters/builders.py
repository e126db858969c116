"""Models small enough to convert in a test: a BERT of two layers and a convolutional network, of random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
import torch
import transformers
from erg_converters.sources.base import Array, Feed, InputSpec

_PLAIN_WORDS = "the a cat dog sat ran on in mat park red blue big small and"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *_PLAIN_WORDS.split(" "))
MAX_LENGTH = 64


class TinyCnn(torch.nn.Module):  # type: ignore[misc]  # PyTorch is read untyped
    """Images fp32 [batch, 3, 16, 16] to logits fp32 [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 3, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(16, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The logits."""
        logits: torch.Tensor = self.layers(image)
        return logits


class TinyEncoder(torch.nn.Module):  # type: ignore[misc]
    """Ids and mask, int64 [batch, length], to mean-pooled embeddings of length 1, fp32 [batch, 32]."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """The embeddings."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


def save_tiny_bert(folder: Path) -> None:
    """Write a transformers folder: config.json, model.safetensors and tokenizer.json, loadable without a network."""
    torch.manual_seed(7)
    # Weights of ten times BERT's usual spread, so that different sentences get visibly different embeddings.
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=MAX_LENGTH, initializer_range=0.2,
    )  # fmt: skip
    transformers.BertModel(config, add_pooling_layer=False).eval().save_pretrained(folder, safe_serialization=True)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def tiny_cnn() -> TinyCnn:
    """The network, the same weights each time."""
    torch.manual_seed(3)
    network = TinyCnn()
    network.eval()
    return network


def export(module: torch.nn.Module, feed: Mapping[str, npt.NDArray[Any]], path: Path, output: str, axes: int) -> None:
    """Export to one file at opset 18; the first `axes` axes of each input of `feed` are dynamic."""
    names = ("batch", "length")
    dims = {
        index: torch.export.Dim(names[index], min=1 + index, max=(1024, MAX_LENGTH)[index]) for index in range(axes)
    }
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(torch.from_numpy(array) for array in feed.values()), str(path), input_names=list(feed),
            output_names=[output], opset_version=18, dynamo=True, dynamic_shapes=dict.fromkeys(feed, dims),
            external_data=False, verbose=False,
        )  # fmt: skip


def tokens(batch: int, length: int, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """A feed of the encoder: random words, row `i` padded by `i` of its places at most."""
    ids = np.random.default_rng(seed).integers(4, len(WORDS), (batch, length), dtype=np.int64)
    mask = (np.arange(length)[None, :] < np.maximum(length - np.arange(batch), 1)[:, None]).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


def images(batch: int, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """A feed of the network: noise."""
    return {"image": np.random.default_rng(seed).normal(size=(batch, 3, 16, 16)).astype(np.float32)}


class ModuleSource:
    """A source around a module or an ONNX file that a test built; its own answer is PyTorch's or `answer`'s."""

    kind = "torch"
    location = "tests"
    license = "Apache-2.0"

    def __init__(
        self,
        module: torch.nn.Module | None,
        specs: tuple[InputSpec, ...],
        output: str,
        *,
        file: Path | None = None,
        answer: Callable[[Feed], list[Array]] | None = None,
    ) -> None:
        self._module: Any = module
        self._specs, self._output, self._file, self._answer = specs, output, file, answer
        self.runs = 0

    @property
    def output_names(self) -> tuple[str, ...]:
        return (self._output,)

    @property
    def max_sizes(self) -> Mapping[str, int]:
        return {"length": MAX_LENGTH}

    def digest(self) -> str:
        return "d" * 64

    def input_specs(self) -> tuple[InputSpec, ...]:
        return self._specs

    def file(self) -> Path | None:
        return self._file

    def module(self) -> torch.nn.Module:
        module: torch.nn.Module = self._module
        return module

    def run(self, feed: Feed) -> list[Array]:
        self.runs += 1
        if self._answer is not None:
            return self._answer(feed)
        with torch.no_grad():
            return [self._module(*(torch.from_numpy(feed[spec.name]) for spec in self._specs)).numpy()]


TOKEN_SPECS = (
    InputSpec(name="input_ids", datatype="INT64", dims=(-1, -1), axes=("batch", "length"), high=len(WORDS)),
    InputSpec(name="attention_mask", datatype="INT64", dims=(-1, -1), axes=("batch", "length")),
)
IMAGE_SPECS = (InputSpec(name="image", datatype="FP32", dims=(-1, 3, 16, 16), axes=("batch",)),)
