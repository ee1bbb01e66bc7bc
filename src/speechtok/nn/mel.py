"""Mel spectrograms of waveforms as layers: HTK mel scale, Slaney area norm (what the official trainer uses)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.melscale import mel_filters


class LogMel(nn.Module):
    """Natural logarithm of mel magnitudes, ``wave[B, T] -> [B, M, n_mels]`` with ``M = T // hop``."""

    def __init__(self, sample_rate: int, n_fft: int, hop: int, n_mels: int, floor: float = 1e-5):
        super().__init__()
        self.n_fft, self.hop, self.floor = n_fft, hop, floor
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        filters = torch.from_numpy(mel_filters(sample_rate, n_fft, n_mels).T.copy())
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Frames are not centred; the ends are reflected by ``(n_fft - hop) / 2``."""
        pad = (self.n_fft - self.hop) // 2
        padded = F.pad(wave.unsqueeze(1), (pad, pad), mode="reflect").squeeze(1)
        frames = padded.unfold(1, self.n_fft, self.hop) * self.window
        magnitude = torch.fft.rfft(frames).abs()
        return torch.log((magnitude @ self.filters).clamp_min(self.floor))
