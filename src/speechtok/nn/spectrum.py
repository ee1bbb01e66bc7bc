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
        return self.windowed(F.pad(wave, self.padding))

    def windowed(self, wave: Tensor) -> Tensor:
        """``wave[B, T] -> complex spectrum[B, M, bins]`` of the M windows that lie in it."""
        return torch.fft.rfft(wave.unfold(1, self.n_fft, self.hop) * self.window)

    def synthesise(self, spectrum: Tensor, mask: Tensor | None = None, envelope: Tensor | None = None) -> Tensor:
        """``complex spectrum[B, M, bins] -> wave[B, M * hop]``; frames outside ``mask[B, M]`` do not exist.

        ``envelope`` is what :meth:`envelope` gives for the same frames, for callers that need it often.
        """
        frames = torch.fft.irfft(spectrum, n=self.n_fft) * self.window
        if mask is not None:
            frames = frames * mask.unsqueeze(2)
        if envelope is None:
            envelope = self.envelope(frames.shape[1], mask)
        return self._overlap_add(frames) / envelope

    def envelope(self, count: int, mask: Tensor | None = None) -> Tensor:
        """Sum of the squared windows that cover each sample of ``count`` frames, ``[1 or B, count * hop]``."""
        mask = self.window.new_ones(1, count) if mask is None else mask
        return self._overlap_add(mask.unsqueeze(2) * self.window.square()).clamp_min(1e-6)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """``frames[B, M, n_fft] -> [B, M * hop]``, padding cut off."""
        left = self.padding[0]
        return self.overlapped(frames)[:, left : left + frames.shape[1] * self.hop]

    def overlapped(self, frames: Tensor) -> Tensor:
        """Sum of ``frames[B, M, n_fft]`` at their places, ``[B, (M - 1) * hop + n_fft]``."""
        batch, count, _ = frames.shape
        parts = self.n_fft // self.hop
        pieces = frames.reshape(batch, count, parts, self.hop)
        total = frames.new_zeros(batch, count + parts - 1, self.hop)
        for i in range(parts):
            total[:, i : i + count] += pieces[:, :, i]
        return total.reshape(batch, -1)


def make_consistent(
    spectrum: Spectrum, magnitude: Tensor, phasor: Tensor, iterations: int, mask: Tensor | None = None
) -> Tensor:
    """Waveform whose spectrum has ``magnitude`` and the phases nearest to ``phasor`` that a real signal can have.

    Every iteration synthesises, analyses again and keeps only the new phases (Griffin and Lim 1984), with the momentum
    of Perraudin, Balazs and Sondergaard (2013). It is differentiable, so a network learns to start it well.

    Args:
        spectrum: the analysis pair.
        magnitude: ``[B, M, bins]``, non-negative.
        phasor: complex ``[B, M, bins]``; only its phases count.
        iterations: 0 gives the plain inverse transform.
        mask: ``[B, M]`` of real frames.

    Returns:
        ``wave[B, M * hop]``
    """
    inside = None if mask is None else mask.repeat_interleave(spectrum.hop, 1)
    envelope = spectrum.envelope(magnitude.shape[1], mask)
    wave, before = spectrum.synthesise(with_magnitude(magnitude, phasor), mask, envelope), None
    for _ in range(iterations):
        reached = torch.view_as_real(spectrum.analyse(wave if inside is None else wave * inside))
        ahead = reached if before is None else torch.lerp(before, reached, 1 + MOMENTUM)
        wave = spectrum.synthesise(with_magnitude(magnitude, torch.view_as_complex(ahead)), mask, envelope)
        before = reached
    return wave if inside is None else wave * inside


def with_magnitude(magnitude: Tensor, values: Tensor) -> Tensor:
    """``magnitude`` with the phases of complex ``values`` (zero stays zero), with a bounded gradient."""
    return values * (magnitude * torch.rsqrt(values.real.square() + values.imag.square() + 1e-12))
