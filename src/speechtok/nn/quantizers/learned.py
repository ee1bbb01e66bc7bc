"""A codebook learned by gradient: the codebook loss of VQ-VAE.

Source: van den Oord et al. 2017 (arXiv 1711.00937), equation 3. Dead codes are moved to random vectors of the batch,
as in the EMA codebook.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.quantizers.codebook import Codebook, Step, frames
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.ema import dead_codes
from speechtok.nn.quantizers.lloyd import closeness, kmeans
from speechtok.nn.quantizers.processes import all_reduce, pick


class LearnedCodebook(Codebook):
    """Codes ``embed[K, D]`` that are parameters; their gradient is that of the codebook loss alone."""

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__(dimension, codebook_size, config)
        self.embed = nn.Parameter(torch.randn(codebook_size, dimension) / dimension**0.5)
        self.register_buffer("cluster_size", torch.ones(codebook_size))

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``Codebook``."""
        return self.scores(vectors).argmax(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """See ``Codebook``."""
        return F.embedding(codes, self.embed)

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``."""
        scores = self.scores(vectors)
        codes = scores.argmax(-1)
        chosen = F.embedding(codes, self.embed)
        entropy = self._entropy(scores, mask)
        revived = self._count(frames(vectors.detach(), mask), frames(codes, mask)) if self.training else 0
        return Step(chosen.detach(), codes, None, codebook_loss(vectors, chosen), entropy, revived)

    def scores(self, vectors: Tensor) -> Tensor:
        """The higher the nearer, ``[..., D] -> [..., K]``."""
        # a copy, for codes may be revived before the gradient is taken
        return closeness(vectors, self.embed.clone())

    @torch.no_grad()
    def start_statistics(self) -> None:
        """See ``Codebook``."""
        super().start_statistics()
        self.cluster_size.fill_(1)

    def _start(self, vectors: Tensor) -> None:
        self.embed.copy_(kmeans(vectors, self.codebook_size, self.config.kmeans_iterations)[0])
        self.cluster_size.fill_(1)

    @torch.no_grad()
    def _count(self, vectors: Tensor, codes: Tensor) -> int:
        """Count ``codes[M]``, and move dead ones to some of ``vectors[M, D]``; returns how many."""
        counts = torch.bincount(codes, minlength=self.codebook_size).to(self.cluster_size.dtype)
        all_reduce(counts)
        self.cluster_size.mul_(self.config.decay).add_(counts, alpha=1 - self.config.decay)
        dead = dead_codes(self.cluster_size, self.config.revive_below)
        if len(dead):
            # through data: the step in progress keeps the gradient of the codes it looked up
            self.embed.data[dead] = pick(vectors, len(dead)).to(self.embed.dtype)
            self.cluster_size[dead] = 0.5 * self.cluster_size.mean()
        return len(dead)


def codebook_loss(vectors: Tensor, chosen: Tensor) -> Tensor:
    """Squared differences that teach the codes, not the vectors."""
    return (chosen - vectors.detach()).pow(2)
