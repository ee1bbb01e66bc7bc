"""A tokenizer of one's own in one file: each frame's cosine transform, its coefficients rounded on a mu-law scale.

Nothing is learned. Level 0 is the mean of the frame, the following levels are higher and higher frequencies, so fewer
levels sound duller. ``python examples/own_tokenizer.py`` holds it to the contract.
"""

from __future__ import annotations

import numpy as np

from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.fingerprint import fingerprint_of
from speechtok.verify import verify

MU = 255.0


class CosineTokenizer(Tokenizer):
    """160 samples at 16 kHz become 64 codes of 31 values; what lies above 3.2 kHz is dropped."""

    name, scheme, licence = "cosine", "A", "none (no weights)"
    sample_rate, hop, causal = 16000, 160, True
    codebook_sizes, semantic_levels = (31,) * 64, ()

    def __init__(self) -> None:
        angles = np.pi / self.hop * np.outer(np.arange(self.levels), np.arange(self.hop) + 0.5)
        self.basis = np.cos(angles) * np.sqrt(2 / self.hop)  # [levels, hop], rows of length one
        self.basis[0] /= np.sqrt(2)
        self.largest = np.sqrt(self.hop)  # no coefficient of a signal in [-1, 1] exceeds this

    @property
    def fingerprint(self) -> str:
        """Everything that decides which codes come out."""
        return fingerprint_of([self.name, 1, self.sample_rate, self.hop, self.codebook_sizes, MU], {})

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        frames = np.pad(samples, (0, -len(samples) % self.hop)).reshape(-1, self.hop)
        exact = np.stack([frames @ row for row in self.basis[:levels].astype(np.float32)]) / self.largest
        scaled = np.sign(exact) * np.log1p(MU * np.minimum(np.abs(exact), 1)) / np.log1p(MU)
        return np.rint(15 * scaled).astype(np.int64) + 15

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        scaled = (codes - 15) / 15
        exact = np.sign(scaled) * np.expm1(np.abs(scaled) * np.log1p(MU)) / MU
        rows = self.basis[first_level : first_level + len(codes)]
        return (exact.T @ rows * self.largest).astype(np.float32).ravel()


if __name__ == "__main__":
    for check in verify(CosineTokenizer()):
        print("BROKEN" if check.passed is False else "ok", check.name, check.measured, sep="  ")
