"""SimVQ: a frozen random codebook behind one linear map, so that every code moves when any is chosen.

Source: Zhu et al. 2024 (arXiv 2411.02038), section 4. The start differs: the map is set so that the codes have the
mean and the covariance of the first training vectors.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.quantizers.codebook import Codebook, Step
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.learned import codebook_loss
from speechtok.nn.quantizers.lloyd import closeness, nearest
from speechtok.nn.quantizers.projection import principal


class SimVQ(Codebook):
    """Codes ``map(embed[K, D])``; ``embed`` is frozen, the map learns by the codebook loss."""

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__(dimension, codebook_size, config)
        self.register_buffer("embed", torch.randn(codebook_size, dimension) / dimension**0.5)
        self.map = nn.Linear(dimension, dimension)

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``Codebook``."""
        return nearest(vectors, self.map(self.embed))

    def lookup(self, codes: Tensor) -> Tensor:
        """See ``Codebook``."""
        return F.embedding(codes, self.map(self.embed))

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``."""
        codebook = self.map(self.embed)
        scores = closeness(vectors, codebook)
        codes = scores.argmax(-1)
        chosen = F.embedding(codes, codebook)
        return Step(chosen.detach(), codes, None, codebook_loss(vectors, chosen), self._entropy(scores, mask))

    def _start(self, vectors: Tensor) -> None:
        mean, directions, deviations = principal(vectors, self.dimension)
        self.map.weight.copy_((directions.t() * deviations) * self.dimension**0.5)
        self.map.bias.copy_(mean)
