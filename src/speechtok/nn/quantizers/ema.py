"""A codebook learned by exponential moving averages.

Source: van den Oord et al. 2017, appendix A.1; SpeechTokenizer sections 3.1-3.2 and its ``quantization`` package.
Mended here: dead codes stay revived, for the EMA sums are reset together with the code; otherwise the next update
rebuilds the code from stale sums.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.nn.quantizers.codebook import Codebook, Step, frames
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.lloyd import closeness, kmeans, nearest
from speechtok.nn.quantizers.processes import all_reduce, pick


class VectorQuantizer(Codebook):
    """One Euclidean codebook ``embed[K, D]`` learned by exponential moving averages.

    Args:
        key: how many of the D numbers decide which code is nearest; all by default. The others are carried along: a
            code holds their mean over the vectors that it was chosen for.
    """

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig, key: int | None = None):
        super().__init__(dimension, codebook_size, config)
        self.key = dimension if key is None else key
        embed = torch.randn(codebook_size, dimension) / dimension**0.5
        self.register_buffer("cluster_size", torch.ones(codebook_size))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """Index of the nearest code in the Euclidean sense, ``[..., D] -> [...]``."""
        return nearest(vectors[..., : self.key], self.embed[:, : self.key])

    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors, ``[...] -> [..., D]``."""
        return F.embedding(codes, self.embed)

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``; one EMA step in train mode."""
        codes = self.nearest(vectors.detach())
        quantized = self.lookup(codes)
        entropy = self._entropy(self._scores(vectors), mask) if self.config.entropy else None
        revived = self.update(frames(vectors.detach(), mask), frames(codes, mask)) if self.training else 0
        return Step(quantized, codes, entropy=entropy, revived=revived)

    @torch.no_grad()
    def update(self, vectors: Tensor, codes: Tensor) -> int:
        """One EMA step on ``vectors[M, D]`` assigned to ``codes[M]``; returns the number of codes revived."""
        decay = self.config.decay
        counts = torch.bincount(codes, minlength=self.codebook_size).to(vectors.dtype)
        sums = torch.zeros_like(self.embed).index_add_(0, codes, vectors)
        all_reduce(counts)
        all_reduce(sums)
        self.cluster_size.mul_(decay).add_(counts, alpha=1 - decay)
        self.embed_avg.mul_(decay).add_(sums, alpha=1 - decay)
        total = self.cluster_size.sum()
        epsilon = self.config.epsilon
        smoothed = (self.cluster_size + epsilon) / (total + self.codebook_size * epsilon) * total
        self.embed.copy_(self.embed_avg / smoothed.unsqueeze(1))
        return self._revive(vectors)

    @torch.no_grad()
    def start_statistics(self) -> None:
        """See ``Codebook``."""
        super().start_statistics()
        self.cluster_size.fill_(1)
        self.embed_avg.copy_(self.embed)

    def _start(self, vectors: Tensor) -> None:
        centres, sizes = kmeans(vectors, self.codebook_size, self.config.kmeans_iterations, self.key)
        self._set_codes(slice(None), centres, sizes.clamp_min(1.0))

    def _scores(self, vectors: Tensor) -> Tensor:
        # a copy, for the update of this very step moves the codes before the gradient is taken
        return closeness(vectors[..., : self.key], self.embed[:, : self.key].clone())

    def _revive(self, vectors: Tensor) -> int:
        dead = dead_codes(self.cluster_size, self.config.revive_below)
        if len(dead) == 0:
            return 0
        picks = pick(vectors, len(dead))
        # half of the uniform share: enough to live until the next updates have counted its own vectors
        self._set_codes(dead, picks, 0.5 * self.cluster_size.mean().expand(len(dead)))
        return len(dead)

    def _set_codes(self, where: Tensor | slice, vectors: Tensor, sizes: Tensor) -> None:
        """Write codes *and* their EMA sums, so that the next EMA step keeps them."""
        self.embed[where] = vectors
        self.cluster_size[where] = sizes
        self.embed_avg[where] = vectors * sizes.unsqueeze(1)


def dead_codes(usage: Tensor, below: float) -> Tensor:
    """Codes whose ``usage[K]`` is under ``below`` times the uniform share."""
    share = usage * len(usage) / usage.sum()
    return (share < below).nonzero().flatten()
