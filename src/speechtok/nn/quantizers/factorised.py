"""A codebook of few dimensions with a look-up by direction.

Source: DAC (Kumar et al. 2023, arXiv 2306.06546, section 3.2; after Yu et al. 2022, improved VQGAN). Differences: plain
linear projections where DAC has weight-normalised ones, a start from principal components, and revived codes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from speechtok.nn.quantizers.codebook import Step, straight_through
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.learned import LearnedCodebook
from speechtok.nn.quantizers.projection import Projection


class FactorisedCodebook(LearnedCodebook):
    """Codes ``embed[K, d]`` between two projections; the nearest is the one of the most similar direction."""

    attached = True

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__(config.code_dimension, codebook_size, config)
        self.projection = Projection(dimension, config.code_dimension)

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``Codebook``."""
        return super().nearest(self.projection.down(vectors))

    def lookup(self, codes: Tensor) -> Tensor:
        """See ``Codebook``."""
        return self.projection.up(super().lookup(codes))

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``."""
        projected = self.projection.down(vectors)
        step = super().forward(projected, mask)
        quantized = self.projection.up(straight_through(projected, step.quantized))
        return step._replace(quantized=quantized, commitment=step.distance(projected))

    def scores(self, vectors: Tensor) -> Tensor:
        """The more similar the direction the higher, ``[..., d] -> [..., K]``."""
        return F.normalize(vectors, dim=-1) @ F.normalize(self.embed.clone(), dim=-1).t()

    def _start(self, vectors: Tensor) -> None:
        self.projection.start_down(vectors)
        super()._start(self.projection.down(vectors))
        self.projection.start_up(vectors, super().lookup(self.nearest(vectors)))
