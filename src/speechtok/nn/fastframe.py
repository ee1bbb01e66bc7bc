"""The trunk of the frame codec at inference, its linear maps in another precision and everything time-major.

Every class is made from the layer that it stands for, holds a copy of its weights, and passes no gradient.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.frame import ConvNeXtBlock


class CastLinear(nn.Module):
    """A linear layer whose weights and input are in ``dtype``; the output is, too, or float32 where ``back``.

    Args:
        linear: the layer.
        dtype: of the product.
        back: give float32.
        scale: ``[out]``, factors of the output that are taken into the weights.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, back: bool = False, scale: Tensor | None = None):
        super().__init__()
        weight, bias, self.back = linear.weight.detach(), linear.bias.detach(), back
        if scale is not None:
            weight, bias = weight * scale.detach()[:, None], bias * scale.detach()
        self.weight, self.bias = weight.to(dtype), bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``x[..., in] -> [..., out]``."""
        y = F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        return y.float() if self.back else y


class FastBlock(nn.Module):
    """A ConvNeXt block, ``x[B, N, C] -> [B, N, C]``.

    Its depth-wise convolution is a sum of shifted frames, which spares turning the layout round and back.
    """

    def __init__(self, block: ConvNeXtBlock, dtype: torch.dtype):
        super().__init__()
        self.padding, self.norm = block.padding, block.norm
        self.taps = block.depthwise.weight.detach()[:, 0].t().contiguous()
        self.bias = block.depthwise.bias.detach()
        self.up, self.down = CastLinear(block.up, dtype), CastLinear(block.down, dtype, scale=block.gamma)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """See ``ConvNeXtBlock``."""
        frames = x.shape[1]
        y = F.pad(x if mask is None else x * mask, (0, 0, *self.padding))
        mixed = torch.addcmul(self.bias, y[:, :frames], self.taps[0])
        for k in range(1, len(self.taps)):
            mixed.addcmul_(y[:, k : k + frames], self.taps[k])
        return x + self.down(F.gelu(self.up(self.norm(mixed))))
