"""A small ResNet trained here on scikit-learn's handwritten digits: 8 x 8 images, ten classes, real labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

Feed = Mapping[str, npt.NDArray[np.float32]]
Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

EPOCHS = 12
BATCH = 64


class Block(nn.Module):  # type: ignore[misc]  # PyTorch is read untyped
    """Two 3 x 3 convolutions around a shortcut (He et al., "Deep Residual Learning", 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.one_norm = nn.BatchNorm2d(channels)
        self.two = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.two_norm = nn.BatchNorm2d(channels)
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride) if stride > 1 or channels_in != channels else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's answer, its input's size divided by the stride."""
        y = functional.relu(self.one_norm(self.one(x)))
        y = self.two_norm(self.two(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class DigitsResNet(nn.Module):  # type: ignore[misc]
    """fp32 [batch, 1, 8, 8] in 0..1 to logits [batch, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, 1, 1)
        self.blocks = nn.Sequential(Block(32, 32, 1), Block(32, 64, 2), Block(64, 96, 2), Block(96, 96, 1))
        self.head = nn.Linear(96, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of the ten digits."""
        features = self.blocks(functional.relu(self.stem(image)))
        return self.head(features.mean((2, 3)))


def model() -> torch.nn.Module:
    """Train on seven tenths of the digits; the same seed gives the same weights on one machine."""
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
    return network.eval()


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
