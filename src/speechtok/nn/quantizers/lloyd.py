"""K-means, and the nearest of some centres."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def kmeans(vectors: Tensor, clusters: int, iterations: int, key: int | None = None) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm from random vectors; returns ``centres[K, D]`` and their ``sizes[K]``.

    Only the first ``key`` numbers of a vector (all by default) decide to which centre it belongs.

    With fewer vectors than clusters some start as jittered copies, so that they can part later. Empty clusters
    move to a random vector in every iteration.
    """
    count = len(vectors)
    if count >= clusters:
        centres = vectors[torch.randperm(count, device=vectors.device)[:clusters]].clone()
    else:
        picks = vectors[torch.randint(count, (clusters,), device=vectors.device)]
        centres = picks + 0.01 * vectors.std() * torch.randn_like(picks)
    sizes = torch.ones(clusters, dtype=vectors.dtype, device=vectors.device)
    for _ in range(iterations):
        chosen = nearest(vectors[:, :key], centres[:, :key])
        sizes = torch.bincount(chosen, minlength=clusters).to(vectors.dtype)
        sums = torch.zeros_like(centres).index_add_(0, chosen, vectors)
        empty = sizes == 0
        centres = sums / sizes.clamp_min(1).unsqueeze(1)
        centres[empty] = vectors[torch.randint(count, (int(empty.sum()),), device=vectors.device)]
    return centres, sizes


def nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """``[..., D]`` and ``[K, D]`` to the index of the nearest centre ``[...]``."""
    return closeness(vectors, centres).argmax(-1)


def closeness(vectors: Tensor, centres: Tensor) -> Tensor:
    """Half the negative squared distances but for a number per vector, ``[..., D]`` and ``[K, D]`` to ``[..., K]``."""
    # argmin |x - e|^2 = argmax x.e - |e|^2 / 2: one matrix product with the norms as its bias
    flat = vectors.reshape(-1, vectors.shape[-1])
    return torch.addmm(-0.5 * centres.pow(2).sum(1), flat, centres.t()).reshape(*vectors.shape[:-1], -1)
