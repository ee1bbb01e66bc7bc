"""Residual quantization: a stack of codebooks, each quantizing what the levels above it left over.

Source: SpeechTokenizer sections 3.1-3.2; DAC for factorised levels. A fault of the EnCodec family is mended here: the
residual is detached, otherwise levels two and up send no gradient to the encoder. Codebooks with projections pass a
gradient of their own; there the residual stays attached, as in DAC, so that the levels together pass one gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechtok.nn.quantizers.base import Quantized, Quantizer, around, gather
from speechtok.nn.quantizers.build import make_codebook
from speechtok.nn.quantizers.codebook import Codebook, straight_through
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.ema import VectorQuantizer


class ResidualVQ(Quantizer):
    """A stack of codebooks of the kind ``config.level``; with a single one, a plain quantizer of that kind.

    Args:
        dimension: D, of the latent that the levels add up to.
        codebook_size: of every level, or one number for each.
        own_space: S; where it is above 0, the quantized vectors are ``[S | D]``, and level one is chosen by the first S
            numbers alone. Its code then stands for the mean latent of the frames it is chosen for, and the other levels
            quantize what is left. So level one can be taught without bending the latent.
    """

    def __init__(
        self,
        dimension: int,
        codebook_size: int | Sequence[int],
        n_q: int,
        config: QuantizerConfig | None = None,
        own_space: int = 0,
    ):
        sizes = (codebook_size,) * n_q if isinstance(codebook_size, int) else tuple(codebook_size)
        super().__init__(dimension, sizes, config or QuantizerConfig(), own_space)
        self.own_space = own_space
        self.layers = nn.ModuleList(self._layer(level, size) for level, size in enumerate(sizes))

    def _layer(self, level: int, size: int) -> Codebook:
        if level == 0 and self.own_space:
            return VectorQuantizer(self.own_space + self.dimension, size, self.config, self.own_space)
        return make_codebook(self.dimension, size, self.config)

    def _levels(self) -> Sequence[Codebook]:
        return list(self.layers)

    def encode(self, latent: Tensor, levels: int | None = None, mask: Tensor | None = None) -> Tensor:
        """``latent[B, N, S + D] -> codes[B, Q, N]`` of the first ``levels`` levels (all when None)."""
        residual, codes = latent, []
        for level, layer in enumerate(self.layers[:levels]):
            codes.append(layer.nearest(residual, mask))
            residual = self._latent(residual - layer.lookup(codes[-1]), level)
        return torch.stack(codes, dim=1)

    def vectors(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """What each level adds to the latent, ``codes[B, Q, N] -> [Q, B, N, D]``; row 0 belongs to ``first_level``."""
        rows = zip(self.layers[first_level : first_level + codes.shape[1]], codes.unbind(1), strict=True)
        return torch.stack(
            [self._latent(layer.lookup(row), level) for level, (layer, row) in enumerate(rows, first_level)]
        )

    def first(self, codes: Tensor) -> Tensor:
        """Vectors of level one in the space it was chosen in, ``codes[B, N] -> [B, N, S or D]``."""
        return self._chosen(self.layers[0].lookup(codes))

    def forward(self, latent: Tensor, mask: Tensor | None = None, kept: Tensor | None = None) -> Quantized:
        """Quantize in training: the codebooks' updates (train mode only), straight-through gradient, level dropout.

        Args:
            latent: ``[B, N, S + D]``.
            mask: ``[B, N]``, True on real frames; padding teaches no codebook.
            kept: ``[B]``, the number of levels each utterance is reconstructed from; drawn where it is not given.
        """
        self._ready_for(latent, mask)
        kept = self._draw_levels(latent.shape[0], latent.device) if kept is None else kept
        official = self.config.reproduce_official_gradient
        residual, total, first = latent, 0, None
        steps, keeps = [], []
        for level, layer in enumerate(self.layers):
            step = layer(residual, mask)
            quantized = straight_through(residual, step.quantized) if official else step.quantized
            following, distance = residual - quantized, step.distance(residual)
            keep = (level < kept).to(latent.dtype).view(-1, 1, 1)
            total = total + keep * self._latent(quantized, level)
            first = self._chosen(quantized) if first is None else first
            if level == 0 and self.own_space:  # what a code only carries along is no fault of the latent's
                distance = self._chosen(distance)
            steps.append(step._replace(commitment=distance))
            keeps.append(keep)
            residual = self._latent(following, level)
        attached = official or self.layers[0].attached
        total = around(self._latent(latent, 0), total, attached)
        return gather(total, around(self._chosen(latent), first, attached), steps, torch.stack(keeps), mask)

    def passed(self, latent: Tensor) -> Quantized:
        """What training works with before there are codebooks, ``latent[B, N, S + D]`` as it is.

        Level one can be taught already where it has a space of its own.
        """
        return Quantized(self._latent(latent, 0), latent[..., : self.own_space] if self.own_space else None)

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """Place the codes of every level in turn by ``vectors[M, D]``, each by what the levels above leave over."""
        residual = vectors
        for level, layer in enumerate(self.layers):
            layer.initialise(residual)
            residual = self._latent(residual - layer.lookup(layer.nearest(residual)), level)

    def _latent(self, vectors: Tensor, level: int) -> Tensor:
        """The part of vectors of this level that lies in the latent."""
        return vectors[..., self.own_space :] if level == 0 else vectors

    def _chosen(self, vectors: Tensor) -> Tensor:
        """The part of level one's vectors by which it is chosen."""
        return vectors[..., : self.own_space or self.dimension]
