"""Mel filters as plain numbers: HTK scale, Slaney area norm (what the official trainer uses). No torch here."""

from __future__ import annotations

import numpy as np


def mel_filters(sample_rate: int, n_fft: int, n_mels: int, fmin: float = 0.0, fmax: float | None = None) -> np.ndarray:
    """Triangular filters ``[n_mels, n_fft // 2 + 1]``, HTK scale, each of area one per hertz (Slaney norm)."""
    top = sample_rate / 2 if fmax is None else fmax
    mels = np.linspace(*(2595 * np.log10(1 + np.array([fmin, top]) / 700)), n_mels + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
