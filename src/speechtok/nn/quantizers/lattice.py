"""Codebooks without a table: a few numbers, each rounded to one of a few steps."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from speechtok.nn.quantizers.codebook import Codebook, Step, straight_through
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.projection import Projection


class Lattice(Codebook):
    """A projection to d numbers, of which the i-th has ``steps[i]`` values; the code writes their digits in one number.

    Subclasses say what is rounded (``squash``), to which digits, and what value a digit has.
    """

    attached = True

    def __init__(self, dimension: int, steps: tuple[int, ...], config: QuantizerConfig):
        bases = torch.tensor((1, *steps[:-1])).cumprod(0)
        super().__init__(dimension, int(bases[-1]) * steps[-1], config)
        self.projection = Projection(dimension, len(steps))
        self.register_buffer("steps", torch.tensor(steps), persistent=False)
        self.register_buffer("bases", bases, persistent=False)

    @abstractmethod
    def squash(self, projected: Tensor) -> Tensor:
        """What is rounded, on the scale of the values, ``[..., d] -> [..., d]``."""

    @abstractmethod
    def digits(self, squashed: Tensor) -> Tensor:
        """The nearest digits, whole numbers ``[..., d]``."""

    @abstractmethod
    def values(self, digits: Tensor) -> Tensor:
        """What the digits stand for, ``[..., d]``."""

    def commitment(self, squashed: Tensor, values: Tensor) -> Tensor:
        """None by default: zeros ``[..., 1]``."""
        return torch.zeros_like(squashed[..., :1]).detach()

    def entropy(self, squashed: Tensor, mask: Tensor | None) -> Tensor | None:
        """The entropy loss; none by default."""
        return None

    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``Codebook``."""
        return self._pack(self._digits(self.squash(self.projection.down(vectors))))

    def lookup(self, codes: Tensor) -> Tensor:
        """See ``Codebook``."""
        return self.projection.up(self.values(self.unpacked(codes)))

    def unpacked(self, codes: Tensor) -> Tensor:
        """Digits of codes, ``[...] -> [..., d]``."""
        return codes.unsqueeze(-1) // self.bases % self.steps

    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """See ``Codebook``."""
        squashed = self.squash(self.projection.down(vectors))
        digits = self._digits(squashed)
        values = self.values(digits).to(squashed)
        quantized = self.projection.up(straight_through(squashed, values))
        entropy = self.entropy(squashed, mask) if self.config.entropy else None
        return Step(quantized, self._pack(digits), self.commitment(squashed, values), None, entropy)

    def _start(self, vectors: Tensor) -> None:
        self.projection.start_down(vectors)
        self.projection.start_up(vectors, self.values(self.unpacked(self.nearest(vectors))))

    def _digits(self, squashed: Tensor) -> Tensor:
        # what is not finite has no nearest value, yet its code must exist
        return torch.minimum(self.digits(squashed).clamp_min(0), self.steps - 1)

    def _pack(self, digits: Tensor) -> Tensor:
        return (digits * self.bases).sum(-1)
