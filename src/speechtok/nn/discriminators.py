"""Discriminators: each returns, per sub-discriminator, a score map and the list of its inner feature maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

Judgement = tuple[Tensor, list[Tensor]]


@dataclass
class STFTDiscriminatorConfig:
    """Multi-scale STFT discriminator (EnCodec section 3.4; SpeechTokenizer ``discriminators.py``)."""

    filters: int = 32
    windows: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    """Window and transform length of each sub-discriminator, in samples; the hop is a quarter."""


class STFTDiscriminator(nn.Module):
    """Two-dimensional convolutions over one complex spectrogram, ``wave[B, T] -> score[B, M', F']``."""

    def __init__(self, filters: int, window: int):
        super().__init__()
        self.window_length = window
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        shapes = [  # channels in, kernel (time, frequency), stride in frequency, dilation in time
            (2, (3, 9), 1, 1),
            *((filters, (3, 9), 2, dilation) for dilation in (1, 2, 4)),
            (filters, (3, 3), 1, 1),
        ]
        self.layers = nn.ModuleList(_conv(channels, filters, *rest) for channels, *rest in shapes)
        self.score = _conv(filters, 1, (3, 3), 1, 1)

    def forward(self, wave: Tensor) -> Judgement:
        """Judge ``wave[B, T]``."""
        n_fft, hop = self.window_length, self.window_length // 4
        frames = F.pad(wave, (n_fft // 2, n_fft // 2)).unfold(1, n_fft, hop) * self.window
        spectrum = torch.fft.rfft(frames, norm="ortho")
        x, features = torch.stack([spectrum.real, spectrum.imag], dim=1), []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x).squeeze(1), features


class MultiScaleSTFTDiscriminator(nn.Module):
    """One :class:`STFTDiscriminator` per window length."""

    def __init__(self, config: STFTDiscriminatorConfig):
        super().__init__()
        self.scales = nn.ModuleList(STFTDiscriminator(config.filters, window) for window in config.windows)

    def forward(self, wave: Tensor, scales: tuple[int, ...] | None = None) -> list[Judgement]:
        """Judge ``wave[B, T]`` with every scale, or with those named by index."""
        chosen = range(len(self.scales)) if scales is None else scales
        return [self.scales[i](wave) for i in chosen]


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: int, dilation: int) -> nn.Module:
    padding = ((kernel[0] - 1) // 2 * dilation, (kernel[1] - 1) // 2)
    return weight_norm(
        nn.Conv2d(inputs, outputs, kernel, stride=(1, stride), dilation=(dilation, 1), padding=padding)
    )
