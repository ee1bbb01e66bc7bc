"""Products of numbers between -1 and 1 with a fixed matrix, in integers: for the steps of an LSTM at inference.

A step multiplies a few vectors with a matrix that is larger than the processor's nearer caches, so its time is that of
reading the matrix. In eight-bit integers that is a quarter of the bytes of float32, and processors with instructions
for such products (VNNI, AMX) multiply them faster than they can be read. A matrix is written as a sum of one or more
integer matrices, each with a scale per row that is 254 times finer than the one before; a vector as 16-bit numbers
whose two bytes are multiplied as rows of their own, which reads the matrix no second time. Integer sums are exact, so a
vector has the same product in any company.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

CPU_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8")
"""Of processors that sum eight-bit products without overflow, as ``torch.cpu.get_capabilities`` names them."""
LEVELS = 127
"""Integers on each side of zero in a matrix."""
BYTE, ZERO, STEPS = 256, 32768.0, 32767.0
"""A number x is the unsigned ``ZERO + STEPS * x``."""


class Room(NamedTuple):
    """What the products of a batch of vectors are computed in, made once for many of them."""

    rounding: Tensor
    """``[B, K]``, what cutting off the fraction turns into ``ZERO``."""
    scaled: Tensor
    whole: Tensor
    bytes: Tensor
    """``[2, B, K]``, a view of the lower bytes of ``whole``, the lowest first."""
    digits: Tensor
    """The same in order."""


class FixedPoint:
    """``x[B, K] -> x @ weight.t()`` for x between -1 and 1, without the constant ``offset[N]``, which is to be added.

    Args:
        weight: ``[N, K]``.
        tolerance: largest relative rounding error of the weight, as the root of the mean of squares; it decides how
            many integer matrices there are.
    """

    def __init__(self, weight: Tensor, tolerance: float):
        self.inputs = weight.shape[1]
        matrices, scales = integer_terms(weight.detach().double(), tolerance)
        sums = sum(matrix.sum(1, dtype=torch.int64) * scale for matrix, scale in zip(matrices, scales, strict=True))
        self.terms, self.offset = len(matrices), (-sums * (ZERO / STEPS)).float()
        self.packed = torch.ops.onednn.qlinear_prepack(torch.cat(matrices), None)
        self.scale = (torch.cat(scales) / STEPS).float()
        self.zeros = torch.zeros(len(self.scale), dtype=torch.int64)

    def room(self, batch: int) -> Room:
        """For that many vectors at a time."""
        scaled = torch.empty(batch, self.inputs)
        whole = torch.empty(batch, self.inputs, dtype=torch.int32)
        low_first = whole.view(torch.uint8).unflatten(1, (-1, 4))[..., :2].movedim(2, 0)
        return Room(torch.full_like(scaled, ZERO + 0.5), scaled, whole, low_first, low_first.contiguous())

    def add_to(self, start: Tensor, x: Tensor, room: Room, out: Tensor) -> None:
        """``out[B, N] = start[B, N]`` + the product of ``x[B, K]``."""
        torch.add(room.rounding, x, alpha=STEPS, out=room.scaled)
        room.whole.copy_(room.scaled)
        room.digits.copy_(room.bytes)
        rows = torch.ops.onednn.qlinear_pointwise(
            room.digits.flatten(0, 1), 1.0, 0, self.packed, self.scale, self.zeros,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        low, high = rows.chunk(2)
        for part, worth in ((low, 1), (high, BYTE)):
            for term in part.chunk(self.terms, dim=1):
                start = torch.add(start, term, alpha=worth, out=out)


def integer_terms(weight: Tensor, tolerance: float) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices of int8 ``[N, K]`` and scales ``[N]`` whose products add up to ``weight`` within ``tolerance``."""
    scale = (weight.abs().amax(1) / LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
    matrices: list[Tensor] = []
    scales: list[Tensor] = []
    rest = weight
    while not matrices or float(rest.norm()) > tolerance * float(weight.norm()):
        matrices.append((rest / scale[:, None]).round_().clamp_(-LEVELS, LEVELS).to(torch.int8))
        scales.append(scale)
        rest = rest - matrices[-1] * scale[:, None]
        scale = scale / (2 * LEVELS)
    return matrices, scales


@lru_cache(maxsize=1)
@torch.inference_mode()
def multiplies_integers() -> bool:
    """Whether this processor and this torch have exact products of bytes."""
    found = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(found.get(feature, False) for feature in CPU_FEATURES):
        return False
    try:
        product = FixedPoint(torch.full((16, 64), 2.0), 1e-3)
        out = product.offset.unsqueeze(0).clone()
        product.add_to(out, torch.ones(1, 64), product.room(1), out)
    except (AttributeError, RuntimeError):  # not in this version of torch
        return False
    return bool(((out - 128).abs() < 1e-2).all())
