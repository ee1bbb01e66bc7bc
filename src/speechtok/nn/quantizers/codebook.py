"""What one codebook is: vectors in, one whole number each, and vectors back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.processes import broadcast


class Step(NamedTuple):
    """What a codebook returns in training."""

    quantized: Tensor
    """``[B, N, D]``: without gradient, or with a gradient to the input where the codebook is ``attached``."""
    codes: Tensor
    """``[B, N]``."""
    commitment: Tensor | None = None
    """How far the vectors are from the (detached) codes, ``[B, N, *]`` in the space where codes are chosen; None where
    that is the squared distance of the vectors themselves."""
    codebook: Tensor | None = None
    """The same with the vectors detached: what codes learn from where they are learned by gradient."""
    entropy: Tensor | None = None
    """The entropy loss."""
    revived: int = 0
    """Codes brought back to life."""

    def distance(self, vectors: Tensor) -> Tensor:
        """The commitment of each frame, given the vectors that were quantized."""
        return (vectors - self.quantized).pow(2) if self.commitment is None else self.commitment


class Codebook(nn.Module, ABC):
    """One codebook. Subclasses fill ``nearest``, ``lookup``, ``forward`` and ``_start``.

    Args:
        dimension: D, of the vectors.
        codebook_size: K.
    """

    attached = False
    """Whether ``forward`` passes a gradient from the quantized vectors to its input. Where not, the quantizer passes
    it around the codebook, unchanged."""

    def __init__(self, dimension: int, codebook_size: int, config: QuantizerConfig):
        super().__init__()
        self.config, self.dimension, self._size = config, dimension, codebook_size
        self.register_buffer("inited", torch.zeros(1))

    @property
    def codebook_size(self) -> int:
        """Number of codes K."""
        return self._size

    @property
    def ready(self) -> bool:
        """Whether the codes have been placed."""
        return bool(self.inited)

    @abstractmethod
    def nearest(self, vectors: Tensor, mask: Tensor | None = None) -> Tensor:
        """The code of each vector, ``[..., D] -> [...]``; ``mask[...]`` is True on real frames."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Code vectors, ``[...] -> [..., D]``."""

    @abstractmethod
    def forward(self, vectors: Tensor, mask: Tensor | None = None) -> Step:
        """Quantize ``vectors[B, N, D]`` in training; frames outside ``mask[B, N]`` teach nothing."""

    @torch.no_grad()
    def initialise(self, vectors: Tensor) -> None:
        """Place the codes by ``vectors[M, D]``; every process keeps the result of the first one."""
        self._start(vectors)
        self.inited.fill_(1)
        for tensor in self.state_dict().values():
            broadcast(tensor)

    @abstractmethod
    def _start(self, vectors: Tensor) -> None:
        """Place the codes."""

    @torch.no_grad()
    def start_statistics(self) -> None:
        """What only training needs, anew: as if every code had been chosen once."""
        self.inited.fill_(1)

    def _entropy(self, scores: Tensor, mask: Tensor | None) -> Tensor | None:
        """The entropy loss of ``scores[B, N, K]``, which are half negative squared distances; None at weight 0."""
        if not self.config.entropy:
            return None
        log_odds = (2 * frames(scores, mask) / self.config.entropy_temperature).log_softmax(-1)
        return entropy_loss(log_odds, self.config.diversity)


def entropy_loss(log_odds: Tensor, diversity: float) -> Tensor:
    """``E[H(p)] - diversity * H(E[p])`` of ``log p[M, K]``, in nats (MAGVIT-v2, arXiv 2310.05737, equation 6).

    It falls when every choice is sure and all codes are chosen equally often. Processes do not share their means.
    """
    odds = log_odds.exp()
    single = -(odds * log_odds).sum(-1).mean()
    return single - diversity * torch.special.entr(odds.mean(0)).sum()


def straight_through(continuous: Tensor, quantized: Tensor) -> Tensor:
    """The values of ``quantized`` with the gradient of ``continuous``."""
    return continuous + (quantized - continuous).detach()


def frames(values: Tensor, mask: Tensor | None) -> Tensor:
    """Real frames of a batch in one row, ``[B, N, ...] -> [M, ...]``."""
    return values.flatten(0, 1) if mask is None else values[mask]
