"""Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.lattice import Lattice

MARGIN = 1e-3
"""How far beyond its outermost steps a number may go, so that both can be reached."""


class FSQ(Lattice):
    """Each number is squashed by tanh and rounded to ``fsq_levels[i]`` even steps. No table, no extra loss.

    With an even number of steps they are shifted by half a step, so that 0 is one of them.
    """

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__(dimension, tuple(config.fsq_levels), config)
        reach = (self.steps - 1) * (1 + MARGIN) / 2
        offset = 0.5 * (self.steps % 2 == 0)
        self.register_buffer("reach", reach, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", torch.atanh(offset / reach), persistent=False)

    def squash(self, projected: Tensor) -> Tensor:
        """On the scale of the values, from about -1 to 1; 0 stays 0."""
        return (self.reach * torch.tanh(projected + self.shift) - self.offset) / (self.steps // 2)

    def digits(self, squashed: Tensor) -> Tensor:
        """See ``Lattice``."""
        return (squashed * (self.steps // 2)).round().long() + self.steps // 2

    def values(self, digits: Tensor) -> Tensor:
        """See ``Lattice``."""
        return digits / (self.steps // 2) - 1
