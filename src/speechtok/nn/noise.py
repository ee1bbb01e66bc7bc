"""Noise that turns the largest of some scores into a draw."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise ``-log(-log u)`` of the shape and place of ``like``, in float32.

    The largest of ``logits + gumbel(logits)`` is drawn from ``softmax(logits)``. A generator draws where it lives, so
    that one on the CPU gives every device the same.
    """
    place = like.device if generator is None else generator.device
    uniform = torch.rand(like.shape, generator=generator, device=place, dtype=torch.float32)
    tiny = torch.finfo(torch.float32).tiny
    return -torch.log((-torch.log(uniform.clamp_min(tiny))).clamp_min(tiny)).to(like.device)
