"""A Hugging Face transformers folder: config.json and safetensors weights. Never pickle, never code of the folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from erg_converters.errors import ConversionError, SourceError
from erg_converters.locations import PACKAGE_PREFIX, find
from erg_converters.settings import SourceSettings, Task
from erg_converters.sources.base import Array, Feed, InputSpec
from erg_converters.sources.transformers_heads import SentenceEncoder, TokenEncoder

_NAMES = ("input_ids", "attention_mask", "token_type_ids")
_DOWNLOADED = ["config.json", "*.safetensors", "tokenizer.json", "tokenizer_config.json"]
_MAX_LENGTH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSource:
    """An encoder in evaluation mode, with the head that the task asks for."""

    kind: str
    location: str
    license: str
    network: torch.nn.Module
    sha256: str
    inputs: tuple[InputSpec, ...]
    output_names: tuple[str, ...]
    max_sizes: Mapping[str, int]

    def digest(self) -> str:
        """Of the configuration, the weights, the task and the inputs."""
        return self.sha256

    def input_specs(self) -> tuple[InputSpec, ...]:
        """input_ids, attention_mask and, where the recipe states it, token_type_ids: INT64 [batch, length]."""
        return self.inputs

    def file(self) -> Path | None:
        """None: there is a module to export."""
        return None

    def module(self) -> torch.nn.Module:
        """The encoder with its head, in evaluation mode."""
        return self.network.eval()

    def run(self, feed: Feed) -> list[Array]:
        """PyTorch's answer."""
        arguments = [torch.from_numpy(np.array(feed[spec.name])) for spec in self.inputs]
        with torch.no_grad():
            return [self.network.eval()(*arguments).numpy()]


def find_folder(path: str, base: Path) -> Path:
    """The folder that source.path names; a hub's name is fetched where HF_HUB_OFFLINE does not forbid it.

    Raises:
        SourceError: there is none.
    """
    try:
        folder = find(path, base)
    except ConversionError as error:
        raise SourceError(f"source.path = {error.message}") from error
    if folder.is_dir():
        return folder
    if path.startswith((PACKAGE_PREFIX, "/", ".", "~")) or path.count("/") != 1:
        raise SourceError(f"source.path = '{path}': there is no folder {folder}")
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"}:
        raise SourceError(f"source.path = '{path}': there is no folder {folder}, and HF_HUB_OFFLINE forbids the hub")
    import huggingface_hub  # noqa: PLC0415  # only where a hub is asked

    try:
        return Path(huggingface_hub.snapshot_download(path, allow_patterns=_DOWNLOADED))
    except Exception as error:
        raise SourceError(
            f"source.path = '{path}': there is no folder {folder}, and the hub gives no model of that name: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def load_transformers(
    settings: SourceSettings, task: Task, inputs: tuple[InputSpec, ...], base: Path
) -> TransformersSource:
    """Load an encoder for export; no code of the folder is run.

    Raises:
        SourceError: the folder lacks what it needs, transformers does not load it, or `inputs` are not an encoder's.
    """
    folder = find_folder(settings.path, base)
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise SourceError(
            f"{folder}: a transformers folder has config.json and *.safetensors; pickled weights (*.bin) are not read: "
            "save them again with model.save_pretrained(folder)"
        )
    transformers.utils.logging.disable_progress_bar()
    try:
        # Eager attention exports to plain operators; the fused kinds leave masks that no runtime simplifies.
        encoder: Any = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False,
            attn_implementation="eager", dtype=torch.float32,
        )  # fmt: skip
    except Exception as error:
        raise SourceError(f"{folder}: transformers does not load it: {error}") from error
    specs = _specs(inputs, encoder.config)
    sentence = task in {"", "sentence-embedding"}
    digest = hashlib.sha256(f"{'sentence' if sentence else 'tokens'} {[spec.name for spec in specs]}\n".encode())
    for file in (folder / "config.json", *weights):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    head = SentenceEncoder(encoder) if sentence else TokenEncoder(encoder)
    return TransformersSource(
        kind="transformers",
        location=settings.path,
        license=settings.license,
        network=head.eval().requires_grad_(requires_grad=False),
        sha256=digest.hexdigest(),
        inputs=specs,
        output_names=("sentence_embedding" if sentence else "last_hidden_state",),
        max_sizes={"length": _max_length(encoder, folder)},
    )


def _specs(stated: tuple[InputSpec, ...], config: Any) -> tuple[InputSpec, ...]:
    pad, vocabulary = getattr(config, "pad_token_id", None) or 0, int(config.vocab_size)
    high = {"input_ids": vocabulary, "token_type_ids": max(int(getattr(config, "type_vocab_size", 1) or 1), 1)}
    names = tuple(spec.name for spec in stated) or _NAMES[:2]
    if names not in {_NAMES[:2], _NAMES}:
        raise SourceError(f"an encoder's inputs are {', '.join(_NAMES)}, the last if wanted, not {', '.join(names)}")
    for spec in stated:
        if spec.datatype != "INT64" or len(spec.dims) != 2:
            raise SourceError(
                f"input '{spec.name}' of an encoder is INT64 [-1, -1], not {spec.datatype} {list(spec.dims)}"
            )
    by_name = {spec.name: spec for spec in stated}
    return tuple(
        InputSpec(
            name=name,
            datatype="INT64",
            dims=by_name[name].dims if name in by_name else (-1, -1),
            axes=by_name[name].axes if name in by_name else ("batch", "length"),
            pad_value=float(pad) if name == "input_ids" else 0.0,
            high=high.get(name, 2),
        )
        for name in names
    )


def _max_length(encoder: Any, folder: Path) -> int:
    """Tokens that a row may have: the position table's size, less what some families skip in it."""
    length = int(getattr(encoder.config, "max_position_embeddings", _MAX_LENGTH))
    table: Any = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    skipped = getattr(table, "padding_idx", None)
    if skipped is not None:
        length -= int(skipped) + 1
    try:
        stated = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("model_max_length")
    except (OSError, ValueError, AttributeError):
        return length
    return min(length, stated) if isinstance(stated, int) and stated > 0 else length
