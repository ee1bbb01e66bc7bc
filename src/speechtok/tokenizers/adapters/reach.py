"""How far the convolutions of a foreign codec see, in frames: what overlapping windows need to be exact."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def convolutions(module: nn.Module) -> list[nn.Conv1d | nn.ConvTranspose1d]:
    """Those of a module in the order of their definition, which in all adapted codecs is that of the signal.

    Convolutions of a skip path are counted as if they stood in line: they have one tap, so nothing is added.
    """
    return [part for part in module.modules() if isinstance(part, nn.Conv1d | nn.ConvTranspose1d)]


def encoder_reach(layers: Iterable[nn.Conv1d | nn.ConvTranspose1d], step: int = 1) -> int:
    """Samples that an output sees beside its own position, both sides together.

    Args:
        layers: strided convolutions, first one first.
        step: samples per position of the first one's input.
    """
    reach = 0
    for layer in layers:
        reach += (layer.kernel_size[0] - 1) * layer.dilation[0] * step
        step *= layer.stride[0]
    return reach


def decoder_reach(layers: Iterable[nn.Conv1d | nn.ConvTranspose1d], step: int) -> int:
    """Samples that an output sample sees beside its own position, both sides together.

    Args:
        layers: convolutions and transposed ones, first one first.
        step: samples per position of the first one's input.
    """
    reach = 0
    for layer in layers:
        if isinstance(layer, nn.ConvTranspose1d):
            reach += -(-(layer.kernel_size[0] - 1) // layer.stride[0]) * step
            step //= layer.stride[0]
        else:
            reach += (layer.kernel_size[0] - 1) * layer.dilation[0] * step
    return reach


def frames_of(reach: int, hop: int) -> int:
    """Whole frames that hold so many samples, and one more for the position inside a frame."""
    return -(-reach // hop) + 1
