"""Short-time Fourier analysis and synthesis with a frame grid that tiles the signal, and phase consistency.

The padding adds up to ``n_fft - hop``, so ``M = T / hop`` exactly (what Vocos calls "same"). Masks say which frames
are real: a padded batch then gives what single signals give.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import ConfigError

MOMENTUM = 0.99
"""How far each phase projection steps beyond its result."""


class Spectrum(nn.Module):
    """Hann-window STFT and its least-squares inverse.

    Args:
        n_fft: window and transform length in samples, a multiple of ``hop``.
        hop: samples between frames.
        reach: samples that a frame covers before its own hop, half of ``n_fft - hop`` when None. An analysis that
            reaches back by all of it, and a synthesis by nothing, are causal.

    Raises:
        ConfigError: ``n_fft`` is no multiple of ``hop``.
    """

    def __init__(self, n_fft: int, hop: int, reach: int | None = None):
        super().__init__()
        if n_fft % hop:
            raise ConfigError(f"n_fft {n_fft} must be a multiple of the STFT hop {hop}")
        self.n_fft, self.hop, self.bins = n_fft, hop, n_fft // 2 + 1
        left = (n_fft - hop) // 2 if reach is None else reach
        self.padding = (left, n_fft - hop - left)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def analyse(self, wave: Tensor) -> Tensor:
        """``wave[B, M * hop] -> complex spectrum[B, M, bins]``."""
        frames = F.pad(wave, self.padding).unfold(1, self.n_fft, self.hop)
        return torch.fft.rfft(frames * self.window)

    def synthesise(self, spectrum: Tensor, mask: Tensor | None = None) -> Tensor:
        """``complex spectrum[B, M, bins] -> wave[B, M * hop]``; frames outside ``mask[B, M]`` do not exist."""
        frames = torch.fft.irfft(spectrum, n=self.n_fft) * self.window
        if mask is None:
            mask = frames.new_ones(1, frames.shape[1])
        weight = mask.unsqueeze(2).to(frames.dtype)
        envelope = self._overlap_add(weight * self.window.square())
        return self._overlap_add(frames * weight) / envelope.clamp_min(1e-6)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """``frames[B, M, n_fft] -> [B, M * hop]``, padding cut off."""
        batch, count, _ = frames.shape
        parts = self.n_fft // self.hop
        pieces = frames.reshape(batch, count, parts, self.hop)
        total = sum(F.pad(pieces[:, :, i], (0, 0, i, parts - 1 - i)) for i in range(parts))
        left = self.padding[0]
        return total.reshape(batch, -1)[:, left : left + count * self.hop]


def make_consistent(
    spectrum: Spectrum, magnitude: Tensor, phasor: Tensor, iterations: int, mask: Tensor | None = None
) -> Tensor:
    """Waveform whose spectrum has ``magnitude`` and the phases nearest to ``phasor`` that a real signal can have.

    Every iteration synthesises, analyses again and keeps only the new phases (Griffin and Lim 1984), with the momentum
    of Perraudin, Balazs and Sondergaard (2013). It is differentiable, so a network learns to start it well.

    Args:
        spectrum: the analysis pair.
        magnitude: ``[B, M, bins]``, non-negative.
        phasor: complex ``[B, M, bins]`` of modulus one.
        iterations: 0 gives the plain inverse transform.
        mask: ``[B, M]`` of real frames.

    Returns:
        ``wave[B, M * hop]``
    """
    inside = None if mask is None else mask.repeat_interleave(spectrum.hop, 1)
    wave, before = spectrum.synthesise(magnitude * phasor, mask), None
    for _ in range(iterations):
        reached = spectrum.analyse(wave if inside is None else wave * inside)
        ahead = reached if before is None else reached + MOMENTUM * (reached - before)
        wave, before = spectrum.synthesise(magnitude * unit(ahead), mask), reached
    return wave if inside is None else wave * inside


def unit(values: Tensor) -> Tensor:
    """Complex numbers scaled to modulus one (zero stays zero), with a bounded gradient."""
    return values * torch.rsqrt(values.real.square() + values.imag.square() + 1e-12)
