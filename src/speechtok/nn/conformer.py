"""Conformer blocks (Gulati et al. 2020) with relative or rotary positions, and attention to a prompt without any.

The attention to a prompt is that of CTX-vec2wav (Du et al. 2024, "UniCATS"): frames of a reference are keys and values
without any position, so that it matters what was heard in them and not in which order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.sequence import rotate


@dataclass
class ConformerConfig:
    """Sizes of a stack of blocks; the defaults are those of one CTX-vec2wav encoder (conf/ctxv2w.v1.yaml)."""

    width: int = 184
    heads: int = 2
    blocks: int = 2
    feed_forward: int = 1536
    feed_forward_kernel: int = 3
    """Frames that both layers of a feed-forward part see; 1 makes them the usual linear ones."""
    kernel: int = 31
    """Frames that the depth-wise convolution sees."""
    dropout: float = 0.2
    positions: Literal["relative", "rotary"] = "relative"
    """How attention knows how far apart frames are: learned weights of their distance (Transformer-XL), or rotation by
    their place (Su et al. 2021), which needs no scores of its own and is faster."""

    def __post_init__(self) -> None:
        sizes = ("width", "heads", "blocks", "feed_forward", "feed_forward_kernel", "kernel")
        require_whole(self, 1, *sizes, section="conformer.")
        if self.width % (2 * self.heads):
            raise ConfigError(f"conformer.width={self.width} must be a multiple of twice conformer.heads={self.heads}")
        if not self.kernel % 2 or not self.feed_forward_kernel % 2:
            raise ConfigError("conformer.kernel and conformer.feed_forward_kernel must be odd, to have a middle")


class TimeConv(nn.Module):
    """Convolution over ``x[B, N, C] -> [B, N, O]`` as one matrix product, zeros beyond the ends."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.kernel = kernel
        self.linear = nn.Linear(kernel * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            half = self.kernel // 2
            x = F.pad(x, (0, 0, half, half)).unfold(1, self.kernel, 1).flatten(2)
        return self.linear(x)


class FeedForward(nn.Module):
    """Two convolutions with an activation between them, ``[B, N, C] -> [B, N, C]``."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        width, inner, kernel = config.width, config.feed_forward, config.feed_forward_kernel
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.up, self.down = TimeConv(width, inner, kernel), TimeConv(inner, width, kernel)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.dropout(F.silu(self.up(silenced(self.norm(x), mask))))
        return self.dropout(self.down(silenced(x, mask)))


class Heads(nn.Module):
    """The projections of an attention, and its dropout."""

    def __init__(self, config: ConformerConfig, memory: int | None = None):
        super().__init__()
        width, memory = config.width, memory or config.width
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(memory, width), nn.Linear(memory, width)

    def split(self, x: Tensor) -> Tensor:
        """``[B, N, C] -> [B, H, N, C / H]``"""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        """Of split ``query[B, H, N, d]`` to ``key``, ``value`` ``[B, H, M, d]``; ``bias`` is added to the scores,
        or says which of them count."""
        dropped = self.dropout if self.training else 0.0
        heard = F.scaled_dot_product_attention(query, key, value, bias, dropped)
        return F.dropout(self.out(heard.transpose(1, 2).flatten(2)), self.dropout, self.training)


class RelativeAttention(Heads):
    """Self-attention that knows how far apart frames are (Transformer-XL, Dai et al. 2019), ``[B, N, C]``."""

    def __init__(self, config: ConformerConfig):
        super().__init__(config)
        self.position = nn.Linear(config.width, config.width, bias=False)
        shape = (config.heads, 1, config.width // config.heads)
        self.content_bias, self.position_bias = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask[B, N]`` is False on padding, which nobody hears then."""
        x = self.norm(x)
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        offsets = self.split(self.position(distances(x.shape[1], x.shape[2]).to(x))[None])
        bias = by_pair((query + self.position_bias) @ offsets.transpose(2, 3)) / math.sqrt(query.shape[3])
        if mask is not None:
            bias = bias.masked_fill(~mask[:, None, None], torch.finfo(bias.dtype).min)
        return self.attend(query + self.content_bias, key, value, bias.to(query.dtype))


class RotaryAttention(Heads):
    """Self-attention of ``x[B, N, C]`` whose queries and keys are turned by their places (Su et al. 2021)."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``mask[B, N]`` is False on padding, which nobody hears then."""
        x = self.norm(x)
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        return self.attend(rotate(query), rotate(key), value, None if mask is None else mask[:, None, None])


ATTENTIONS = {"relative": RelativeAttention, "rotary": RotaryAttention}
"""By ``ConformerConfig.positions``."""


class PromptAttention(Heads):
    """Attention of ``x[B, N, C]`` to ``prompt[B, P, D]``, whose frames have no order."""

    def __init__(self, config: ConformerConfig, prompt: int):
        super().__init__(config, prompt)

    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        query = self.split(self.query(self.norm(x)))
        return self.attend(query, self.split(self.key(prompt)), self.split(self.value(prompt)))


class Convolution(nn.Module):
    """Gated depth-wise convolution, ``[B, N, C]``.

    Layer norm stands where the paper has batch norm: statistics of a batch would depend on its padding, and on how
    many processes share it.
    """

    def __init__(self, config: ConformerConfig):
        super().__init__()
        width = config.width
        self.norm, self.gate = nn.LayerNorm(width), nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.norm_out, self.out = nn.LayerNorm(width), nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = F.glu(self.gate(self.norm(x)), 2)
        x = self.depthwise(silenced(x, mask).transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.out(F.silu(self.norm_out(x))))


class ConformerBlock(nn.Module):
    """Half a feed-forward step, attention, attention to the prompt if there is one, convolution, the other half."""

    def __init__(self, config: ConformerConfig, prompt: int = 0):
        super().__init__()
        self.before, self.after = FeedForward(config), FeedForward(config)
        self.attention, self.convolution = ATTENTIONS[config.positions](config), Convolution(config)
        self.prompted = PromptAttention(config, prompt) if prompt else None
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, prompt: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``x[B, N, C]``, ``prompt[B, P, D]``, ``mask[B, N]`` False on padding -> ``[B, N, C]``."""
        x = x + 0.5 * self.before(x, mask)
        x = x + self.attention(x, mask)
        if self.prompted is not None:
            x = x + self.prompted(x, prompt)
        x = x + self.convolution(x, mask)
        x = x + 0.5 * self.after(x, mask)
        return self.norm(x)


class Conformer(nn.Module):
    """A stack of blocks behind a linear input, ``x[B, N, inputs] -> [B, N, width]``."""

    def __init__(self, config: ConformerConfig, inputs: int, prompt: int = 0):
        super().__init__()
        self.inputs = nn.Linear(inputs, config.width)
        self.blocks = nn.ModuleList(ConformerBlock(config, prompt) for _ in range(config.blocks))

    def forward(self, x: Tensor, prompt: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """As one block."""
        x = self.inputs(x)
        for block in self.blocks:
            x = block(x, prompt, mask)
        return x


def silenced(x: Tensor, mask: Tensor | None) -> Tensor:
    """``x[B, N, C]`` with zeros where ``mask[B, N]`` is False, as beyond the ends: no neighbour hears padding."""
    return x if mask is None else x * mask[..., None]


def distances(frames: int, width: int) -> Tensor:
    """Sinusoids of the distances ``frames - 1`` down to ``1 - frames``, ``[2 * frames - 1, width]``."""
    places = torch.arange(frames - 1, -frames, -1.0)[:, None]
    angles = places * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def by_pair(scores: Tensor) -> Tensor:
    """Scores by distance ``[..., N, 2N - 1]`` to scores by pair ``[..., N, N]``: row i begins ``i`` further left."""
    frames = scores.shape[-2]
    turned = F.pad(scores, (1, 0)).unflatten(-1, (2, frames)).reshape(*scores.shape[:-2], 2 * frames, frames)
    return turned[..., 1:, :].reshape(scores.shape)[..., :frames]
