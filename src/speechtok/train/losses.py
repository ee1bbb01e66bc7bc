"""Losses of the codec trainer. Each returns a scalar; the trainer names, weighs and sums them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from speechtok.nn.discriminators import Judgement
from speechtok.nn.mel import LogMel


class MultiScaleMel(nn.Module):
    """Mean over scales of the L1 distance between log-mel spectrograms of ``wave[B, T]`` pairs.

    Several window lengths, as in the paper's frequency-domain loss (SpeechTokenizer section 3.3).
    """

    def __init__(self, sample_rate: int, windows: tuple[int, ...], bands: tuple[int, ...]):
        super().__init__()
        self.scales = nn.ModuleList(
            LogMel(sample_rate, n_fft, n_fft // 4, n_mels) for n_fft, n_mels in zip(windows, bands, strict=True)
        )

    def forward(self, wave: Tensor, target: Tensor) -> Tensor:
        """Distance between reconstructions and targets of one length."""
        return torch.stack([(scale(wave) - scale(target)).abs().mean() for scale in self.scales]).mean()


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Least squares: real towards one, generated towards zero, mean over sub-discriminators."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(1 - r).square().mean() + f.square().mean() for (r, _), (f, _) in pairs]).mean()


def adversarial_loss(fake: list[Judgement]) -> Tensor:
    """Least squares: generated towards one, mean over sub-discriminators."""
    return torch.stack([(1 - score).square().mean() for score, _ in fake]).mean()


def feature_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """Relative feature matching (SpeechTokenizer section 3.3): L1 over mean absolute real feature, mean of all."""
    distances = [
        (f - r).abs().mean() / r.abs().mean().clamp_min(1e-6)
        for (_, real_features), (_, fake_features) in zip(real, fake, strict=True)
        for r, f in zip(real_features, fake_features, strict=True)
    ]
    return torch.stack(distances).mean()
