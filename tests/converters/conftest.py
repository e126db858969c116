"""The tiny models, each saved and exported once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("torch")

import torch
import transformers

from tests.converters import builders


@pytest.fixture(scope="session")
def tiny_bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder; treat it as read-only."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    builders.save_tiny_bert(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert_onnx(tiny_bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The encoder as canonical ONNX: input_ids, attention_mask [batch, length] to sentence_embedding [batch, 32]."""
    bert = transformers.AutoModel.from_pretrained(tiny_bert_folder, attn_implementation="eager", dtype=torch.float32)
    path = tmp_path_factory.mktemp("tiny-bert-onnx") / "model.onnx"
    builders.export(builders.TinyEncoder(bert).eval(), builders.tokens(2, 16), path, "sentence_embedding", axes=2)
    return path


@pytest.fixture(scope="session")
def tiny_cnn_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The convolutional network as canonical ONNX: image [batch, 3, 16, 16] to logits [batch, 10]."""
    path = tmp_path_factory.mktemp("tiny-cnn-onnx") / "model.onnx"
    builders.export(builders.tiny_cnn(), builders.images(2), path, "logits", axes=1)
    return path
