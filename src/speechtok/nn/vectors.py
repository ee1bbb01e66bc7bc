"""Vectors of codes as a place to begin from."""

from __future__ import annotations

from torch import Tensor


def unit_scale(vectors: Tensor) -> Tensor:
    """Code vectors ``[K, D]`` with mean 0 and deviation 1 over all of their numbers, as large as random ones."""
    vectors = vectors.detach().float().cpu()
    centred = vectors - vectors.mean(0)
    return centred / centred.std().clamp_min(1e-6)
