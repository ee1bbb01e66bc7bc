"""When frames lie: the grids of teachers and codecs, and features moved from one grid to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from speechtok.errors import ConfigError


@dataclass(frozen=True)
class FrameLaw:
    """The frames of an extractor without padding: frame n sees samples ``n * hop`` to ``n * hop + window - 1``.

    HuBERT, WavLM and wav2vec 2.0 have a hop of 320 and a window of 400 samples at 16 kHz.
    """

    rate: int
    """Samples per second."""
    hop: int
    """Samples from one frame to the next."""
    window: int
    """Samples that one frame sees."""

    @classmethod
    def of_convolutions(cls, rate: int, kernels: Sequence[int], strides: Sequence[int]) -> FrameLaw:
        """The law of a stack of convolutions without padding."""
        hop, window = 1, 1
        for kernel, stride in zip(kernels, strides, strict=True):
            window += (kernel - 1) * hop
            hop *= stride
        return cls(rate, hop, window)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop

    def frames(self, samples: int) -> int:
        """Frames of so many samples; none where they do not fill one window."""
        return max(0, (samples - self.window) // self.hop + 1)


@dataclass(frozen=True)
class CodecGrid:
    """The frames of a codec: frame n stands for the samples ``n * hop`` to ``(n + 1) * hop - 1``."""

    rate: int
    hop: int

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop


def matching_frames(grid: CodecGrid, law: FrameLaw, frames: int, start: int = 0) -> np.ndarray:
    """For each of ``frames`` codec frames of a crop, the teacher frame of the whole utterance that is nearest, ``[N]``.

    Frame n of the teacher and frame n of a codec with the same rate and hop belong together, as in SpeechTokenizer's
    data set; that the teacher's window is centred 2.5 ms later is left out there and here. A crop that starts on a
    multiple of the hop is matched exactly, any other to within half a frame. Numbers beyond the utterance are
    returned as they come; who holds the features knows where they end.

    Args:
        start: first sample of the crop, at the codec's rate.
    """
    if start < 0:
        raise ConfigError(f"a crop cannot start at sample {start}; give 0 or more")
    # In whole numbers, so exact: the teacher frame in whose span the middle of the codec frame lies.
    middles = 2 * (start + np.arange(frames, dtype=np.int64) * grid.hop) + grid.hop
    return middles * law.rate // (2 * law.hop * grid.rate)


def align(features: Tensor, grid: CodecGrid, law: FrameLaw, frames: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Features of whole utterances on the codec frames of a crop: ``[..., T', D] -> [..., N, D]``, and ``mask[N]``.

    The mask is False, and the features zero, beyond the last teacher frame.
    """
    wanted = torch.from_numpy(matching_frames(grid, law, frames, start)).to(features.device)
    held = features.shape[-2]
    mask = wanted < held
    if not held:
        return features.new_zeros(*features.shape[:-2], frames, features.shape[-1]), mask
    return features[..., wanted.clamp_max(held - 1), :] * mask[:, None].to(features.dtype), mask


def pool(features: Tensor, source_rate: float, target_rate: float, frames: int) -> Tensor:
    """``[B, M, F]`` at ``source_rate`` frames per second to ``[B, frames, F]`` at ``target_rate``.

    Each new frame is the mean of the old ones that begin inside it, or the one it lies in where there is none; past
    the end the last frame is repeated.
    """
    ratio = source_rate / target_rate
    edges = [math.ceil(n * ratio - 1e-9) for n in range(frames + 1)]
    last = features.shape[1]
    spans = [
        (low, high) if high > low else (int(n * ratio), int(n * ratio) + 1)
        for n, (low, high) in enumerate(pairwise(edges))
    ]
    lows = torch.tensor([min(low, last - 1) for low, _ in spans], device=features.device)
    highs = torch.tensor([max(1, min(high, last)) for _, high in spans], device=features.device)
    highs = torch.maximum(highs, lows + 1)
    sums = torch.cat([features.new_zeros(features.shape[0], 1, features.shape[2]), features.cumsum(1)], 1)
    return (sums[:, highs] - sums[:, lows]) / (highs - lows)[:, None]
