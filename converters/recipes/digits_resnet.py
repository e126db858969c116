"""A small ResNet trained here on scikit-learn's handwritten digits: 8 x 8 images, ten classes, real labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_model, save_model
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

Feed = Mapping[str, npt.NDArray[np.float32]]
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

CACHE = Path(".erg-cache") / "recipes"
EPOCHS = 6
BATCH = 64


class Block(nn.Module):  # type: ignore[misc]  # PyTorch is read untyped
    """Two 3 x 3 convolutions around a shortcut (He et al., "Deep Residual Learning", 2016)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)
        self.one_norm = nn.BatchNorm2d(channels)
        self.two = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.two_norm = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's answer, of its input's size."""
        y = functional.relu(self.one_norm(self.one(x)))
        y = self.two_norm(self.two(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class DigitsResNet(nn.Module):  # type: ignore[misc]
    """fp32 [batch, 1, 8, 8] in 0..1 to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 64, 3, 1, 1)
        self.blocks = nn.Sequential(Block(64, 96), Block(96, 96), Block(96, 96))
        self.head = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the ten digits."""
        features = self.blocks(functional.relu(self.stem(image)))
        return self.head(features.mean((2, 3)))


def model() -> torch.nn.Module:
    """The trained network. It trains once; its weights are kept under .erg-cache, for this file and this PyTorch."""
    made_by = hashlib.sha256(Path(__file__).read_bytes() + torch.__version__.encode()).hexdigest()[:16]
    kept = CACHE / f"digits-resnet-{made_by}.safetensors"
    network = DigitsResNet()
    if kept.is_file():
        load_model(network, kept)
        return network.eval()
    network = train()
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(f".{os.getpid()}")
    save_model(network, aside)
    aside.rename(kept)
    return network


def train() -> DigitsResNet:
    """Train on seven tenths of the digits, with a fixed seed."""
    (images, labels), _ = split()
    torch.manual_seed(0)
    network = DigitsResNet()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=steps)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    network.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimiser.step()
            schedule.step()
    network.eval()
    return network


def calibration() -> Iterator[tuple[Feed, int]]:
    """Digits that the network was trained on, to set ranges by."""
    (images, labels), _ = split()
    return _feeds(images[:256], labels[:256])


def evaluation() -> Iterator[tuple[Feed, int]]:
    """The held-out 540 digits with their labels."""
    _, (images, labels) = split()
    return _feeds(images, labels)


def split() -> tuple[tuple[Images, Labels], tuple[Images, Labels]]:
    """Training and held-out images and labels, as many of each class in both."""
    digits = load_digits()
    images = (digits.images[:, None] / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=540, stratify=labels, random_state=0
    )
    return (train_images, train_labels), (test_images, test_labels)


def _feeds(images: Images, labels: Labels) -> Iterator[tuple[Feed, int]]:
    for image, label in zip(images, labels, strict=True):
        yield {"image": image[None]}, int(label)
