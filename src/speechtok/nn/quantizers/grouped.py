"""Quantizers that share the latent's dimensions among groups.

Source: product quantization (Jegou et al. 2011; the review's GVQ), HiFi-Codec's group-residual quantizer (Yang et al.
2023, arXiv 2305.02765, section 3.2), wav2vec 2.0 for Gumbel groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechtok.nn.quantizers.base import Quantized, Quantizer, around, gather
from speechtok.nn.quantizers.build import make_codebook
from speechtok.nn.quantizers.codebook import Codebook, Step
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.gumbel import GumbelCodebook


class GroupedVQ(Quantizer):
    """G groups of ``D / G`` dimensions, each with its own residual stack of ``Q / G`` codebooks.

    Level ``q`` is stage ``q // G`` of group ``q % G``: all groups' first stages come first, so that a prefix of the
    levels is a coarse version of the whole latent. With one stage per group this is product quantization.
    """

    def __init__(self, dimension: int, sizes: Sequence[int], config: QuantizerConfig, groups: int):
        super().__init__(dimension, sizes, config)
        self.groups = groups
        self.layers = nn.ModuleList(self._layer(level, size) for level, size in enumerate(sizes))

    def _layer(self, level: int, size: int) -> Codebook:
        return make_codebook(self.dimension // self.groups, size, self.config)

    def _levels(self) -> Sequence[Codebook]:
        return list(self.layers)

    def _part(self, level: int) -> slice:
        """Dimensions of the latent that this level stands for."""
        width, group = self.dimension // self.groups, level % self.groups
        return slice(group * width, (group + 1) * width)

    def _heard(self, residual: Tensor, level: int) -> Tensor:
        """What this level quantizes of the residual ``[..., D]``."""
        return residual[..., self._part(level)]

    def _spread(self, vectors: Tensor, level: int) -> Tensor:
        """A level's vectors at their place in the latent, ``[..., D / G] -> [..., D]``."""
        part = self._part(level)
        return nn.functional.pad(vectors, (part.start, self.dimension - part.stop))

    def _rest(self, residual: Tensor, spread: Tensor) -> Tensor:
        """What is left once a level has said ``spread``."""
        return residual - spread

    def encode(self, latent: Tensor, levels: int | None = None, mask: Tensor | None = None) -> Tensor:
        """See ``Quantizer``."""
        residual, codes = latent, []
        for level, layer in enumerate(self.layers[:levels]):
            codes.append(layer.nearest(self._heard(residual, level), mask))
            residual = self._rest(residual, self._spread(layer.lookup(codes[-1]), level))
        return torch.stack(codes, dim=1)

    def vectors(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """See ``Quantizer``; zero outside a level's group."""
        rows = zip(self.layers[first_level : first_level + codes.shape[1]], codes.unbind(1), strict=True)
        return torch.stack(
            [self._spread(layer.lookup(row), level) for level, (layer, row) in enumerate(rows, first_level)]
        )

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """See ``Quantizer``."""
        residual = vectors
        for level, layer in enumerate(self.layers):
            heard = self._heard(residual, level)
            layer.initialise(heard)
            residual = self._rest(residual, self._spread(layer.lookup(layer.nearest(heard)), level))

    def forward(self, latent: Tensor, mask: Tensor | None = None) -> Quantized:
        """See ``Quantizer``."""
        self._ready_for(latent, mask)
        kept = self._draw_levels(latent.shape[0], latent.device)
        levels = torch.arange(len(self.layers), device=latent.device)
        keep = (levels[:, None] < kept).to(latent.dtype)[:, :, None, None]
        steps, spread = self._steps(latent, mask)
        attached = self.layers[0].attached
        total = around(latent, sum(kept * one for kept, one in zip(keep, spread, strict=True)), attached)
        own = self._spread(latent[..., self._part(0)], 0)  # level one says nothing of the other groups
        return gather(total, around(own, spread[0], attached), steps, keep, mask)

    def _steps(self, latent: Tensor, mask: Tensor | None) -> tuple[list[Step], list[Tensor]]:
        """Steps of all levels, and their vectors ``[B, N, D]``."""
        residual, steps, spread = latent, [], []
        for level, layer in enumerate(self.layers):
            heard = self._heard(residual, level)
            step = layer(heard, mask)
            steps.append(step._replace(commitment=step.distance(heard)))
            spread.append(self._spread(step.quantized, level))
            residual = self._rest(residual, spread[-1])
        return steps, spread


class GumbelVQ(GroupedVQ):
    """Gumbel codebooks of which each sees the whole latent and gives one part of it, as in wav2vec 2.0."""

    def _layer(self, level: int, size: int) -> Codebook:
        return GumbelCodebook(self.dimension, size, self.config, self._part(level))

    def _heard(self, residual: Tensor, level: int) -> Tensor:
        return residual

    def _rest(self, residual: Tensor, spread: Tensor) -> Tensor:
        return residual
