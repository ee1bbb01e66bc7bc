"""Binary spherical quantization (Zhao et al. 2024, arXiv 2406.07548, section 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.nn.quantizers.codebook import frames
from speechtok.nn.quantizers.lfq import LFQ


class BSQ(LFQ):
    """Signs of a vector on the unit sphere, ``±1 / sqrt(d)``: the error is bounded, so nothing need be committed.

    The entropy of the average is taken sign by sign, which the paper uses in place of the sum over all K codes.
    """

    def squash(self, projected: Tensor) -> Tensor:
        """On the unit sphere."""
        return F.normalize(projected, dim=-1)

    def values(self, digits: Tensor) -> Tensor:
        """``1 / sqrt(d)`` and its negative."""
        return super().values(digits) / digits.shape[-1] ** 0.5

    def commitment(self, squashed: Tensor, values: Tensor) -> Tensor:
        """Zeros ``[..., 1]``."""
        return torch.zeros_like(squashed[..., :1]).detach()

    def entropy(self, squashed: Tensor, mask: Tensor | None) -> Tensor:
        """Sums over the d signs of their entropies."""
        spread = squashed.shape[-1] ** 0.5
        odds = (frames(squashed, mask) * 4 / spread / self.config.entropy_temperature).sigmoid()
        single = _binary(odds).sum(-1).mean()
        return single - self.config.diversity * _binary(odds.mean(0)).sum()


def _binary(odds: Tensor) -> Tensor:
    return torch.special.entr(odds) + torch.special.entr(1 - odds)
