"""E-Branchformer blocks (Kim et al. 2022, arXiv 2210.00077): attention and gated convolution side by side, merged.

Between two half feed-forward steps one branch hears everything by self-attention, the other its neighbourhood by a
convolutional gating unit (cgMLP, Sakuma et al. 2022); a depth-wise convolution mixes both before they join.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.conformer import ATTENTIONS, ConformerConfig, FeedForward, silenced


@dataclass
class EBranchformerConfig:
    """Sizes of a stack of blocks; the defaults are those of ESPnet's recipes for discrete LibriSpeech tokens."""

    width: int = 256
    heads: int = 4
    blocks: int = 12
    feed_forward: int = 1024
    """Width inside each of the two half feed-forward steps."""
    gated: int = 1024
    """Width inside the local branch before one half gates the other."""
    kernel: int = 31
    """Frames that the convolution of the local branch sees."""
    merge_kernel: int = 31
    """Frames that the convolution over both branches sees."""
    dropout: float = 0.1
    attention_dropout: float = 0.1
    """Of the weights and the result of attention; it costs much time on CPUs."""
    positions: Literal["relative", "rotary"] = "relative"
    """How attention knows how far apart frames are, see ``ConformerConfig``; rotary is the faster one."""

    def __post_init__(self) -> None:
        sizes = ("width", "heads", "blocks", "feed_forward", "gated", "kernel", "merge_kernel")
        require_whole(self, 1, *sizes, section="encoder.")
        if self.width % (2 * self.heads):
            raise ConfigError(f"encoder.width={self.width} must be a multiple of twice encoder.heads={self.heads}")
        if not self.kernel % 2 or not self.merge_kernel % 2:
            raise ConfigError("encoder.kernel and encoder.merge_kernel must be odd, to have a middle")
        if self.gated % 2:
            raise ConfigError(f"encoder.gated={self.gated} must be even: one half gates the other")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"encoder.{name} is {getattr(self, name)}; give 0 or more, below 1")

    def shared(self, dropout: float) -> ConformerConfig:
        """Settings of the parts that Conformers have, too."""
        return ConformerConfig(
            self.width, self.heads, self.blocks, self.feed_forward, feed_forward_kernel=1, dropout=dropout
        )


class DepthwiseConv(nn.Module):
    """Convolution of every channel over time, ``x[B, N, C] -> [B, N, C]``, zeros beyond the ends."""

    def __init__(self, width: int, kernel: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask[B, N]`` is False on padding."""
        return self.conv(silenced(x, mask).transpose(1, 2)).transpose(1, 2)


class GatedConvolution(nn.Module):
    """The local branch, ``[B, N, C]``: a perceptron, half of whose inner numbers gate the others through time."""

    def __init__(self, config: EBranchformerConfig):
        super().__init__()
        half = config.gated // 2
        self.norm, self.up = nn.LayerNorm(config.width), nn.Linear(config.width, config.gated)
        self.gate_norm, self.gate = nn.LayerNorm(half), DepthwiseConv(half, config.kernel)
        self.down, self.dropout = nn.Linear(half, config.width), nn.Dropout(config.dropout)
        # an open gate at first, as in gMLP (Liu et al. 2021)
        nn.init.normal_(self.gate.conv.weight, std=1e-6)
        nn.init.ones_(self.gate.conv.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        through, gate = F.gelu(self.up(self.norm(x))).chunk(2, -1)
        gated = through * self.gate(self.gate_norm(gate), mask)
        return self.dropout(self.down(self.dropout(gated)))


class Merge(nn.Module):
    """Two branches ``[B, N, C]`` to one: side by side, plus their depth-wise convolution, then a linear layer."""

    def __init__(self, config: EBranchformerConfig):
        super().__init__()
        self.mix = DepthwiseConv(2 * config.width, config.merge_kernel)
        self.out, self.dropout = nn.Linear(2 * config.width, config.width), nn.Dropout(config.dropout)

    def forward(self, one: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
        both = torch.cat([one, other], -1)
        return self.dropout(self.out(both + self.mix(both, mask)))


class EBranchformerBlock(nn.Module):
    """Half a feed-forward step, both branches and their merge, the other half."""

    def __init__(self, config: EBranchformerConfig):
        super().__init__()
        shape = config.shared(config.dropout)
        self.before, self.after = FeedForward(shape), FeedForward(shape)
        self.everywhere = ATTENTIONS[config.positions](config.shared(config.attention_dropout))
        self.nearby, self.merge, self.norm = GatedConvolution(config), Merge(config), nn.LayerNorm(config.width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``x[B, N, C]``, ``mask[B, N]`` False on padding -> ``[B, N, C]``."""
        x = x + 0.5 * self.before(x, mask)
        x = x + self.merge(self.everywhere(x, mask), self.nearby(x, mask), mask)
        x = x + 0.5 * self.after(x, mask)
        return self.norm(x)


class EBranchformer(nn.Module):
    """A stack of blocks, ``[B, N, C] -> [B, N, C]``."""

    def __init__(self, config: EBranchformerConfig):
        super().__init__()
        self.blocks = nn.ModuleList(EBranchformerBlock(config) for _ in range(config.blocks))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As one block."""
        for block in self.blocks:
            x = block(x, mask)
        return x
