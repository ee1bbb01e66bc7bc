"""Whose voice it is, in one vector: a small reference encoder, and a decoder that is told what it hears.

In the manner of codecs that leave the voice to a reference of the same speaker (LSCodec, arXiv 2410.15764), with a
network of our own: log-mel frames, ConvNeXt blocks, mean and deviation over time. The vector scales and shifts the
latent in front of the decoder (FiLM, Perez et al. 2018), so both backbones take it as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.nn.frame import FrameConfig, Trunk
from speechtok.nn.melscale import mel_filters
from speechtok.nn.pooling import statistics, sums
from speechtok.nn.spectrum import Spectrum

WINDOW = 0.04
"""Shortest analysis window in seconds: it must tell the harmonics of a low voice apart."""
FLOOR = 1e-5
"""Smallest mel magnitude."""


@dataclass
class TimbreConfig:
    """Sizes of the reference encoder and of what tells the decoder."""

    dimension: int = 128
    """Numbers of the vector."""
    bands: int = 64
    """Mel bands that the encoder hears."""
    width: int = 128
    expansion: int = 2
    kernel_size: int = 7
    blocks: int = 3

    def __post_init__(self) -> None:
        sizes = ("dimension", "bands", "width", "expansion", "kernel_size", "blocks")
        require_whole(self, 1, *sizes, section="codec.timbre.")


class TimbreEncoder(nn.Module):
    """``wave[B, T] -> vector[B, D]``, of fixed length; it works on the codec's frames, ``N = ceil(T / hop)``."""

    def __init__(self, config: TimbreConfig, sample_rate: int, hop: int):
        super().__init__()
        self.hop = hop
        self.spectrum = Spectrum(hop * max(2, math.ceil(WINDOW * sample_rate / hop)), hop)
        filters = torch.from_numpy(mel_filters(sample_rate, self.spectrum.n_fft, config.bands).T.copy())
        self.register_buffer("filters", filters, persistent=False)
        trunk = FrameConfig(width=config.width, expansion=config.expansion, kernel_size=config.kernel_size)
        self.trunk = Trunk(trunk, config.bands, config.width, config.blocks)
        self.project = nn.Linear(2 * config.width, config.dimension)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]`` in samples for a padded batch; padding must be zeros."""
        frames = self.frames(wave, lengths)
        return self.vector(*sums(frames, None if lengths is None else self._mask(lengths, frames.shape[1])))

    def frames(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What is pooled, ``wave[B, T] -> [B, N, width]``."""
        spectrum = self.spectrum.analyse(F.pad(wave, (0, -wave.shape[1] % self.hop)))
        logs = torch.log((spectrum.abs() @ self.filters).clamp_min(FLOOR))
        mask = None if lengths is None else self._mask(lengths, logs.shape[1])[..., None].to(logs.dtype)
        return self.trunk(logs, mask)

    def vector(self, count: Tensor, totals: Tensor) -> Tensor:
        """The vector of the ``nn.pooling.sums`` of all frames; its mean is 0, its mean square 1."""
        pooled = statistics(count, totals).to(self.project.weight.dtype)
        return F.layer_norm(self.project(pooled), (self.project.out_features,))

    def context(self) -> tuple[int, int]:
        """Frames of signal that one frame sees to its left and right."""
        before, after = (-(-side // self.hop) for side in self.spectrum.padding)
        left, right = self.trunk.context()
        return left + before, right + after

    def _mask(self, lengths: Tensor, frames: int) -> Tensor:
        return torch.arange(frames, device=lengths.device) < -(-lengths // self.hop)[:, None]


class Film(nn.Module):
    """Scales and shifts a latent by what a vector says; at first it changes nothing."""

    def __init__(self, config: TimbreConfig, latent: int):
        super().__init__()
        self.hidden = nn.Linear(config.dimension, config.width)
        self.outputs = nn.Linear(config.width, 2 * latent)
        nn.init.zeros_(self.outputs.weight)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, latent: Tensor, vector: Tensor) -> Tensor:
        """``latent[B, N, L]``, ``vector[B, D] -> [B, N, L]``."""
        scale, shift = self.outputs(F.gelu(self.hidden(vector)))[:, None].chunk(2, 2)
        return latent * (1 + scale) + shift
