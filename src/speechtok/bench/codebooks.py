"""How well the codes of each level are used, and how many bits they really carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class CodebookUsage:
    """One level over a fixed body of speech."""

    level: int
    size: int
    frames: int
    used: int
    """Codes that occur at least once."""
    entropy: float
    """Of the code distribution, in bits."""

    @property
    def usage(self) -> float:
        """Fraction of the codebook that occurs. It cannot exceed ``frames / size``."""
        return self.used / self.size

    @property
    def perplexity(self) -> float:
        """``2 ** entropy``: how many equally likely codes would carry as much."""
        return 2**self.entropy

    @property
    def normalised_entropy(self) -> float:
        """Entropy over that of a uniform codebook, from 0 to 1."""
        return self.entropy / math.log2(self.size) if self.size > 1 else 1.0

    def to_dict(self) -> dict[str, float]:
        """Plain types, ready for JSON."""
        return asdict(self) | {
            "usage": self.usage,
            "perplexity": self.perplexity,
            "normalised_entropy": self.normalised_entropy,
        }


def codebook_usage(codes: Sequence[np.ndarray], sizes: Sequence[int]) -> list[CodebookUsage]:
    """Usage of every level over utterances ``codes[i][Q, N_i]`` whose levels hold ``sizes[q]`` codes.

    Entropies are plug-in estimates: with few frames per code they come out too low.
    """
    together = np.concatenate(list(codes), axis=1)
    return [_level(level, row, size) for level, (row, size) in enumerate(zip(together, sizes, strict=True))]


def entropy_bitrate(usage: Sequence[CodebookUsage], frame_rate: float) -> float:
    """Bits per second of an ideal entropy coder that codes each level by its own frequencies: ``F * sum(H)``."""
    return frame_rate * sum(level.entropy for level in usage)


def _level(level: int, codes: np.ndarray, size: int) -> CodebookUsage:
    counts = np.bincount(codes, minlength=size)
    odds = counts[counts > 0] / len(codes)
    return CodebookUsage(level, size, len(codes), len(odds), abs(float(-(odds * np.log2(odds)).sum())))
