"""What all discriminators share."""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

Judgement = tuple[Tensor, list[Tensor]]
"""Score map of any shape with the batch first, and the feature maps before it, from the first layer on."""


def climb(layers: Iterable[nn.Module], x: Tensor, slope: float) -> tuple[Tensor, list[Tensor]]:
    """Layers with leaky ReLU in turn; returns the last activation and all of them."""
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), slope)
        features.append(x)
    return x, features


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, at least one."""
    return max(1, round(channels * width))
