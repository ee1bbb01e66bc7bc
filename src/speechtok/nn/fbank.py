"""The log-mel front end that SpeechBrain's published speaker models were trained with.

Source: SpeechBrain ``processing/features.py`` (Fbank with 80 bands) followed by sentence mean normalisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1e-10
"""Smallest band power."""
RANGE = 80.0
"""Decibels below the loudest band of a signal at which its bands are cut."""


class SpeakerMel(nn.Module):
    """Band levels in decibels, less their mean over time: ``wave[B, T] -> [B, M, bands]`` with ``M = T // hop + 1``.

    Frame m is centred on sample ``m * hop``; zeros stand beyond the ends. Windows last 25 ms and start every 10 ms.
    """

    def __init__(self, sample_rate: int = 16000, bands: int = 80):
        super().__init__()
        self.sample_rate, self.bands = sample_rate, bands
        self.window_length, self.hop = round(0.025 * sample_rate), round(0.010 * sample_rate)
        self.register_buffer("window", torch.hamming_window(self.window_length), persistent=False)
        self.register_buffer("filters", symmetric_filters(sample_rate, self.window_length, bands), persistent=False)

    def frames(self, samples: int | Tensor) -> int | Tensor:
        """Number of frames of so many samples."""
        return samples // self.hop + 1

    def samples(self, frames: int) -> int:
        """Fewest samples that make so many frames."""
        return (frames - 1) * self.hop

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]`` in samples: the mean is taken over the frames of the signal; padding must be zeros."""
        spectrum = torch.stft(
            wave.float(), self.window_length, self.hop, window=self.window,
            center=True, pad_mode="constant", return_complex=True,
        )  # fmt: skip
        power = spectrum.real.square() + spectrum.imag.square()
        levels = 10 * torch.log10((power.transpose(1, 2) @ self.filters).clamp_min(FLOOR))
        levels = torch.maximum(levels, levels.amax((1, 2), keepdim=True) - RANGE)
        return levels - _mean_over_time(levels, None if lengths is None else self.frames(lengths))


def symmetric_filters(sample_rate: int, n_fft: int, bands: int) -> Tensor:
    """Triangles of height one ``[n_fft // 2 + 1, bands]``, centred on HTK mel steps.

    Both flanks are as wide as the step on the lower side, which is SpeechBrain's form and differs from the usual one.
    """
    top = 2595 * torch.log10(torch.tensor(1 + sample_rate / 2 / 700, dtype=torch.float64))
    edges = 700 * (10 ** (torch.linspace(0, float(top), bands + 2, dtype=torch.float64) / 2595) - 1)
    centres, widths = edges[1:-1], (edges[1:] - edges[:-1])[:-1]
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    distance = (frequencies[:, None] - centres).abs() / widths
    return (1 - distance).clamp_min(0).float()


def _mean_over_time(levels: Tensor, frames: Tensor | None) -> Tensor:
    if frames is None:
        return levels.mean(1, keepdim=True)
    inside = torch.arange(levels.shape[1], device=levels.device) < frames.to(levels.device)[:, None]
    return (levels * inside[..., None]).sum(1, keepdim=True) / inside.sum(1)[:, None, None]
