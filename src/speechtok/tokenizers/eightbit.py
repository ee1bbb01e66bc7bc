"""Weights stored in 8 bits: whole numbers and one scale per row, half of fp16. They are read back as float32."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LEAST = 4096
"""Smaller tensors are stored in fp16, for they save nothing and matter as much."""
LARGEST = 127
SCALE = ".scale"
"""Added to the name of a tensor for that of its scales."""


def shrink(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with float32 scales ``[rows]``, rounded to the nearest; the rest as fp16."""
    small = {}
    for name, value in state.items():
        if value.ndim < 2 or value.numel() < LEAST:
            small[name] = value.to(torch.float16)
            continue
        rows = value.flatten(1).float()
        scale = (rows.abs().amax(1) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)  # rows of zeros need one, too
        small[name + SCALE] = scale
        small[name] = (rows / scale[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8).view(value.shape)
    return small


def grow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of ``shrink``, in float32; other floating-point tensors only become float32.

    Raises:
        KeyError: whole numbers without scales.
    """
    whole = {}
    for name, value in state.items():
        if value.dtype == torch.int8:
            scale = state[name + SCALE]
            whole[name] = value.float() * scale.view(-1, *[1] * (value.ndim - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in state):
            whole[name] = value.float()
    return whole
