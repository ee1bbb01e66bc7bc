"""K-means fitted once, then frozen (HuBERT's units, arXiv 2106.07447; the review's offline clustering)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.nn.quantizers.codebook import Codebook, Step
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.lloyd import closeness, kmeans


class FrozenCodebook(Codebook):
    """Centres ``embed[K, D]`` that ``initialise`` fits and nothing moves after that; only the encoder adapts."""

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__(dimension, codebook_size, config)
        self.register_buffer("embed", torch.randn(codebook_size, dimension) / dimension**0.5)

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``Codebook``."""
        return closeness(vectors, self.embed).argmax(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """See ``Codebook``."""
        return F.embedding(codes, self.embed)

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``."""
        scores = closeness(vectors, self.embed)
        codes = scores.argmax(-1)
        quantized = self.lookup(codes)
        return Step(quantized, codes, entropy=self._entropy(scores, mask))

    def _start(self, vectors: Tensor) -> None:
        self.embed.copy_(kmeans(vectors, self.codebook_size, self.config.kmeans_iterations)[0])
