"""Means and deviations over time, of a padded batch or summed up piece by piece."""

from __future__ import annotations

import torch
from torch import Tensor


def sums(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """``x[B, N, C]`` to the number of frames ``[B, 1]`` and the sums of x and of its square ``[B, 2 C]``.

    Only frames inside ``mask[B, N]`` count. Both may be added up over the pieces of a long signal.
    """
    inside = x.new_ones(*x.shape[:2], 1) if mask is None else mask[..., None].to(x.dtype)
    return inside.sum(1), torch.cat([(x * inside).sum(1), (x.square() * inside).sum(1)], 1)


def statistics(count: Tensor, totals: Tensor) -> Tensor:
    """What ``sums`` gives to means and standard deviations ``[B, 2 C]``."""
    mean, square = (totals / count.clamp_min(1)).chunk(2, 1)
    return torch.cat([mean, (square - mean.square()).clamp_min(1e-6).sqrt()], 1)
