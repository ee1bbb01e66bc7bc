"""Mel-frequency cepstral coefficients with their first and second differences: HuBERT's first targets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.mel import LogMel

RATE, HOP = 16000, 160
BANDS, COEFFICIENTS, LIFTER = 23, 13, 22
"""Kaldi's sizes, which HuBERT's first iteration used (Hsu et al. 2021, section IV-B)."""


class MFCC(nn.Module):
    """``wave[B, T]`` at 16 kHz to ``[B, T // 160, 39]``; frame m is centred on sample ``160 m + 80``.

    Unlike Kaldi's, the mel filters weigh magnitudes and not powers, and there is no dither.
    """

    DIMENSION = 3 * COEFFICIENTS

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel(RATE, n_fft=400, hop=HOP, n_mels=BANDS)
        k, n = torch.arange(COEFFICIENTS)[:, None], torch.arange(BANDS)[None]
        cosines = torch.cos(math.pi / BANDS * k * (n + 0.5)) * math.sqrt(2 / BANDS)
        cosines[0] /= math.sqrt(2)
        lifter = 1 + LIFTER / 2 * torch.sin(math.pi * torch.arange(COEFFICIENTS) / LIFTER)
        self.register_buffer("transform", (cosines * lifter[:, None]).t().contiguous(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """See the class."""
        emphasised = wave - 0.97 * F.pad(wave, (1, 0))[:, :-1]
        cepstra = 2 * self.mel(emphasised) @ self.transform  # twice a log magnitude has the range of a log power
        first = differences(cepstra)
        return torch.cat([cepstra, first, differences(first)], -1)


def differences(values: Tensor) -> Tensor:
    """Slope of a line through five neighbouring frames, ``[B, M, C] -> [B, M, C]``; the ends are repeated."""
    padded = F.pad(values.transpose(1, 2), (2, 2), mode="replicate").transpose(1, 2)
    frames = values.shape[1]
    return sum(d * padded[:, 2 + d : 2 + d + frames] for d in (-2, -1, 1, 2)) / 10
