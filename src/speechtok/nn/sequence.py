"""What SEANet may hold at its bottleneck to look along time: an LSTM with a skip, or a windowed transformer.

All layers map ``x[B, C, N] -> [B, C', N]``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from speechtok.nn.conv import Timed


class SkipLSTM(Timed, nn.Module):
    """LSTM plus its input; the input is repeated over both halves where the LSTM runs in both directions.

    Source: SpeechTokenizer's ``modules/lstm.py``.
    """

    def __init__(self, width: int, layers: int, bidirectional: bool):
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, bidirectional=bidirectional)
        self.outputs = 2 * width if bidirectional else width

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]`` in frames: the backward direction of each signal starts at its own end."""
        x = x.transpose(1, 2)
        if lengths is None or not self.lstm.bidirectional:
            return (self.lstm(x)[0] + x.repeat(1, 1, self.outputs // x.shape[2])).transpose(1, 2)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])
        return (y + x.repeat(1, 1, 2)).transpose(1, 2)

    def reach(self, low: int, high: int) -> None:
        """Unbounded."""
        return None


class Transformer(Timed, nn.Module):
    """Pre-norm blocks whose attention sees `window` frames on each side, or only back where causal.

    Positions are rotary (Su et al. 2021), hence relative: a chunk with context gives what the whole gives.
    """

    def __init__(self, width: int, layers: int, heads: int, window: int, causal: bool):
        super().__init__()
        sides = (window, 0 if causal else window)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads, sides) for _ in range(layers))
        self.outputs = width

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]`` in frames; nothing attends past a signal's end."""
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, lengths)
        return x.transpose(1, 2)

    def reach(self, low: int, high: int) -> tuple[int, int]:
        """Each block adds its window."""
        left, right = (sum(block.sides[side] for block in self.blocks) for side in (0, 1))
        return low - left, high + right


class TransformerBlock(nn.Module):
    """Windowed self-attention and a perceptron, ``x[B, N, C] -> [B, N, C]``."""

    def __init__(self, width: int, heads: int, sides: tuple[int, int]):
        super().__init__()
        self.heads = heads
        self.sides = sides
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_perceptron = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        batch, frames, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).view(batch, frames, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = windowed_attention(rotate(q), rotate(k), v, self.sides, lengths)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, frames, width))
        return x + self.perceptron(self.norm_perceptron(x))


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding of ``x[B, H, N, E]`` with an even E."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** -(torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = torch.arange(x.shape[-2], device=x.device, dtype=torch.float32).unsqueeze(1) * speed
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    real, imaginary = x.chunk(2, dim=-1)
    return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, sides: tuple[int, int], lengths: Tensor | None = None
) -> Tensor:
    """Attention of ``q, k, v[B, H, N, E]`` within `sides` (left, right) frames; memory is linear in N.

    Queries go in blocks of the left side's length; each block meets the keys of its own span and both sides.
    """
    frames = q.shape[2]
    left, right = sides
    surplus = -frames % left
    span = left + left + right
    q = F.pad(q, (0, 0, 0, surplus)).unflatten(2, (-1, left))
    k, v = (F.pad(t, (0, 0, left, surplus + right)).unfold(2, span, left).transpose(-1, -2) for t in (k, v))
    query = torch.arange(frames + surplus, device=q.device).view(-1, left, 1)
    key = query[:, :1] - left + torch.arange(span, device=q.device)
    end = frames if lengths is None else lengths.view(-1, 1, 1, 1, 1)
    near = (key >= query - left) & (key <= query + right)
    # a query past the end looks at itself, so that no row is empty
    allowed = (near & (key >= 0) & (key < end)) | (key == query)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed).flatten(2, 3)[:, :, :frames]
