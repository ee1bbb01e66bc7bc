"""Discriminators that see complex spectrograms: whole (EnCodec) and band by band (Descript audio codec)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from speechtok.nn.discriminators.base import Judgement, climb

BAND_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Five bands, as shares of the bins."""


@dataclass
class STFTDiscriminatorConfig:
    """Multi-scale STFT discriminator (EnCodec section 3.4; SpeechTokenizer ``discriminators.py``)."""

    filters: int = 32
    windows: tuple[int, ...] = (1024, 2048, 512, 256, 128)
    """Window and transform length of each sub-discriminator, in samples; the hop is a quarter. Empty means none."""
    official: bool = False
    """As published: frames only where the signal fills them, spectra divided by the norm of the window, and no weight
    norm on the first layer. Otherwise silence pads the ends and spectra are divided by the root of the length."""


@dataclass
class BandDiscriminatorConfig:
    """Multi-band complex STFT discriminator (DAC section 3.3); DAC uses the windows 2048, 1024, 512."""

    filters: int = 32
    windows: tuple[int, ...] = ()
    """Window and transform length of each sub-discriminator, in samples; the hop is a quarter. Empty means none."""


class STFTDiscriminator(nn.Module):
    """Two-dimensional convolutions over one complex spectrogram, ``wave[B, T] -> score[B, M', F']``."""

    def __init__(self, filters: int, window: int, official: bool = False):
        super().__init__()
        shape = torch.hann_window(window)
        self.padding = 0 if official else window // 2
        self.register_buffer("window", shape * window**0.5 / shape.norm() if official else shape, persistent=False)
        shapes = [  # channels in, kernel (time, frequency), stride in frequency, dilation in time
            (2, (3, 9), 1, 1),
            *((filters, (3, 9), 2, dilation) for dilation in (1, 2, 4)),
            (filters, (3, 3), 1, 1),
        ]
        self.layers = nn.ModuleList(
            _conv(channels, filters, *rest, normed=i > 0 or not official) for i, (channels, *rest) in enumerate(shapes)
        )
        self.score = _conv(filters, 1, (3, 3), 1, 1)

    def forward(self, wave: Tensor) -> Judgement:
        """Judge ``wave[B, T]``."""
        padded = F.pad(wave, (self.padding, self.padding)) if self.padding else wave
        x, features = climb(self.layers, _spectrogram(padded, self.window), 0.2)
        return self.score(x).squeeze(1), features


class BandDiscriminator(nn.Module):
    """A stack of convolutions per frequency band, and one score over all of them side by side."""

    def __init__(self, filters: int, window: int):
        super().__init__()
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        edges = [int(edge * (window // 2 + 1)) for edge in BAND_EDGES]
        self.bands = list(pairwise(edges))
        shapes = [(2, (3, 9), 1), *3 * [(filters, (3, 9), 2)], (filters, (3, 3), 1)]
        self.stacks = nn.ModuleList(
            nn.ModuleList(_conv(channels, filters, kernel, stride, 1) for channels, kernel, stride in shapes)
            for _ in self.bands
        )
        self.score = _conv(filters, 1, (3, 3), 1, 1)

    def forward(self, wave: Tensor) -> Judgement:
        """Judge ``wave[B, T]``; the ends are reflected, so that there are ``T / hop`` frames."""
        n_fft = len(self.window)
        side = (n_fft - n_fft // 4) // 2
        padded = F.pad(wave.unsqueeze(1), (side, side), mode="reflect").squeeze(1)
        spectrum, ends, features = _spectrogram(padded, self.window), [], []
        for stack, (low, high) in zip(self.stacks, self.bands, strict=True):
            end, inner = climb(stack, spectrum[..., low:high], 0.1)
            ends.append(end)
            features += inner
        score = self.score(torch.cat(ends, dim=3))
        return score.squeeze(1), [*features, score]


def _spectrogram(wave: Tensor, window: Tensor) -> Tensor:
    """Real and imaginary parts as channels, ``wave[B, T] -> [B, 2, M, n_fft // 2 + 1]``; hop ``n_fft / 4``."""
    frames = wave.unfold(1, len(window), len(window) // 4) * window
    spectrum = torch.fft.rfft(frames, norm="ortho")
    return torch.stack([spectrum.real, spectrum.imag], dim=1)


def _conv(
    inputs: int, outputs: int, kernel: tuple[int, int], stride: int, dilation: int, normed: bool = True
) -> nn.Module:
    padding = ((kernel[0] - 1) // 2 * dilation, (kernel[1] - 1) // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride=(1, stride), dilation=(dilation, 1), padding=padding)
    return weight_norm(conv) if normed else conv
