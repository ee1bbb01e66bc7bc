"""A Transformer decoder (Vaswani et al. 2017): text, symbol by symbol, from what an encoder heard.

Layer norm stands before each part (Xiong et al. 2020). Decoding keeps keys and values, so that a step costs one symbol.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.conformer import ConformerConfig, FeedForward, Heads

Past = tuple[Tensor, Tensor] | None
"""Keys and values ``[B, H, L, d]`` of what was said before; None at the beginning."""


@dataclass
class TextDecoderConfig:
    """Sizes; the defaults are those of ESPnet's recipes for discrete LibriSpeech tokens. Its width is the encoder's."""

    heads: int = 4
    blocks: int = 6
    feed_forward: int = 2048
    dropout: float = 0.1

    def __post_init__(self) -> None:
        require_whole(self, 1, "heads", "blocks", "feed_forward", section="decoder.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"decoder.dropout is {self.dropout}; give 0 or more, below 1")


@dataclass
class Spoken:
    """Where a decoding stands: keys and values of each block, ``[B, H, ., d]``, of the text and of the memory."""

    text: list[tuple[Tensor, Tensor]]
    memory: list[tuple[Tensor, Tensor]]
    mask: Tensor | None
    """``[B, 1, 1, M]``, False on padding of the memory."""
    length: int = 0

    def select(self, rows: Tensor) -> Spoken:
        """The rows ``[B']`` of a beam that go on, all of which hear the same memory."""
        text = [(key[rows], value[rows]) for key, value in self.text]
        return Spoken(text, self.memory, self.mask, self.length)


class DecoderBlock(nn.Module):
    """Attention to the text so far, to the memory, and a feed-forward part."""

    def __init__(self, config: ConformerConfig):
        super().__init__()
        self.itself, self.across = Heads(config), Heads(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor], bias: Tensor | None, mask: Tensor | None, past: Past = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """``x[B, L, C]`` and the keys and values ``[B, H, L', d]`` of all of the text; ``past`` are those before x."""
        part, heard = self.itself, self.itself.norm(x)
        query, key, value = (part.split(one(heard)) for one in (part.query, part.key, part.value))
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        x = x + part.attend(query, key, value, bias)
        part = self.across
        query = part.split(part.query(part.norm(x)))
        x = x + part.attend(query, *(one.expand(len(x), -1, -1, -1) for one in memory), mask)
        return x + self.feed_forward(x), (key, value)

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values ``[B, H, M, d]`` of ``memory[B, M, C]``."""
        return self.across.split(self.across.key(memory)), self.across.split(self.across.value(memory))


class TextDecoder(nn.Module):
    """Logits of the next symbol, from symbols ``[B, L]`` and a memory ``[B, M, C]``.

    Args:
        width: C, of the memory as well.
        symbols: of the text.
    """

    def __init__(self, config: TextDecoderConfig, width: int, symbols: int):
        super().__init__()
        if width % (2 * config.heads):
            raise ConfigError(f"the decoder's width {width} must be a multiple of twice decoder.heads={config.heads}")
        shape = ConformerConfig(
            width, config.heads, config.blocks, config.feed_forward, feed_forward_kernel=1, dropout=config.dropout
        )
        self.embedding, self.scale = nn.Embedding(symbols, width), math.sqrt(width)
        nn.init.normal_(self.embedding.weight, std=1 / self.scale)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(DecoderBlock(shape) for _ in range(config.blocks))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, symbols)

    def forward(self, text: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """All steps at once, ``[B, L, symbols]``: row i knows ``text[:, :i + 1]`` and no more.

        Args:
            mask: ``[B, M]``, False on padding of the memory.
        """
        x, mask = self._embedded(text, 0), mask if mask is None else mask[:, None, None]
        causal = torch.ones(text.shape[1], text.shape[1], dtype=torch.bool, device=text.device).tril()
        for block in self.blocks:
            x, _ = block(x, block.remember(memory), causal, mask)
        return self.out(self.norm(x))

    def start(self, memory: Tensor, mask: Tensor | None = None) -> Spoken:
        """A decoding of ``memory[B, M, C]``, before its first symbol. A beam of any width may hear one memory (B=1)."""
        mask = mask if mask is None else mask[:, None, None]
        return Spoken([], [block.remember(memory) for block in self.blocks], mask)

    def step(self, symbols: Tensor, spoken: Spoken) -> tuple[Tensor, Spoken]:
        """Logits ``[B, symbols]`` behind one more symbol ``[B]`` of each row, and where the decoding stands then."""
        x, pasts = self._embedded(symbols[:, None], spoken.length), spoken.text or [None] * len(self.blocks)
        text = []
        for block, memory, past in zip(self.blocks, spoken.memory, pasts, strict=True):
            x, kept = block(x, memory, None, spoken.mask, past)
            text.append(kept)
        logits = self.out(self.norm(x))[:, 0]
        return logits, Spoken(text, spoken.memory, spoken.mask, spoken.length + 1)

    def _embedded(self, text: Tensor, first: int) -> Tensor:
        """Symbols ``[B, L]`` at the places from ``first`` on as vectors."""
        x = self.embedding(text) * self.scale
        return self.dropout(x + sinusoids(first, text.shape[1], x.shape[2]).to(x))


def sinusoids(first: int, count: int, width: int) -> Tensor:
    """Of the places from ``first`` on, ``[count, width]``."""
    places = torch.arange(first, first + count, dtype=torch.float32)[:, None]
    angles = places * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
