"""What every quantizer of a codec is: latents in, codes ``[B, Q, N]``, and latents back."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from speechtok.nn.quantizers.codebook import Codebook, Step, frames, straight_through
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.processes import process, processes


@dataclass
class Quantized:
    """What a quantizer returns in training."""

    latent: Tensor
    """Sum of the kept levels with straight-through gradient, ``[B, N, D]``."""
    first: Tensor | None
    """Level one alone with straight-through gradient, ``[B, N, D]``, or ``[B, N, S]`` where it has a space of its own
    (what semantic guidance teaches). None before there are codebooks where it has none."""
    codes: Tensor | None = None
    """``[B, Q, N]``; None where nothing has been quantized."""
    commitment: Tensor | None = None
    """Mean over levels and frames of the squared distance to the (detached) code vectors; 0 for kinds without one."""
    revived: list[int] = field(default_factory=list)
    """Codes brought back to life in this step, per level."""
    losses: dict[str, Tensor] = field(default_factory=dict)
    """What else must be minimised, by name: ``codebook/mse`` where codes are learned by gradient, ``entropy/codes``.
    Means over levels, unweighted; ``QuantizerConfig.weights`` has their weights."""


class Quantizer(nn.Module, ABC):
    """A quantizer with Q levels. Subclasses fill ``_levels``, ``encode``, ``vectors``, ``initialise`` and ``forward``.

    Args:
        dimension: D, of the latent that the levels add up to.
        sizes: number of codes of each level.
        own_space: see ``ResidualVQ``.

    Raises:
        ConfigError: the settings do not fit each other.
    """

    def __init__(self, dimension: int, sizes: Sequence[int], config: QuantizerConfig, own_space: int = 0):
        super().__init__()
        config.require_fit(dimension, sizes, own_space)
        self.config, self.dimension = config, dimension

    @abstractmethod
    def _levels(self) -> Sequence[Codebook]:
        """The codebook of each level."""

    @abstractmethod
    def encode(self, latent: Tensor, levels: int | None = None, mask: Tensor | None = None) -> Tensor:
        """``latent[B, N, D] -> codes[B, Q, N]`` of the first ``levels`` levels (all when None).

        ``mask[B, N]``, True on real frames, matters only where a code covers several frames.
        """

    @abstractmethod
    def vectors(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """What each level adds to the latent, ``codes[B, Q, N] -> [Q, B, N, D]``; row 0 belongs to ``first_level``."""

    @abstractmethod
    def initialise(self, vectors: Tensor) -> None:
        """Place all codes by ``vectors[M, D]``, frames in their order."""

    @abstractmethod
    def forward(self, latent: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize ``latent[B, N, D]`` in training; padding, outside ``mask[B, N]``, teaches no codebook."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes of each level."""
        return tuple(level.codebook_size for level in self._levels())

    @property
    def strides(self) -> tuple[int, ...]:
        """Frames that one code of each level covers; it is repeated on all of them."""
        return (1,) * len(self._levels())

    @property
    def ready(self) -> bool:
        """Whether all codes have been placed."""
        return all(level.ready for level in self._levels())

    def bitrate(self, frame_rate: float, levels: int | None = None) -> float:
        """Bit/s of the first ``levels`` levels were every code equally likely; a repeated code counts once."""
        shape = list(zip(self.codebook_sizes, self.strides, strict=True))[:levels]
        return frame_rate * sum(math.log2(size) / stride for size, stride in shape)

    def decode(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """Sum of the code vectors, ``codes[B, Q, N] -> latent[B, N, D]``; row 0 belongs to ``first_level``."""
        return self.vectors(codes, first_level).sum(0)

    def first(self, codes: Tensor) -> Tensor:
        """Vectors of level one, ``codes[B, N] -> [B, N, D]``."""
        return self.vectors(codes.unsqueeze(1))[0]

    def passed(self, latent: Tensor) -> Quantized:
        """What training works with before there are codebooks: ``latent[B, N, D]`` as it is."""
        return Quantized(latent, None)

    def codebooks(self) -> Iterator[Codebook]:
        """All codebooks."""
        return (module for module in self.modules() if isinstance(module, Codebook))

    def _ready_for(self, latent: Tensor, mask: Tensor | None) -> None:
        """Place the codes by the first training batch where nothing else has."""
        if self.training and not self.ready:
            self.initialise(frames(latent.detach(), mask))

    def _draw_levels(self, batch: int, device: torch.device) -> Tensor:
        """Number of levels each utterance is reconstructed from, ``[B]``."""
        count = len(self._levels())
        full = torch.full((batch,), count, device=device)
        if not self.training or self.config.dropout == 0:
            return full
        # all processes draw for the whole batch and use their share: together they do what a single one would
        everyone = batch * processes()
        drawn = torch.randint(1, count + 1, (everyone,), device=device)
        dropped = torch.rand(everyone, device=device) < self.config.dropout
        mine = slice(batch * process(), batch * (process() + 1))
        return torch.where(dropped[mine], drawn[mine], full)


def gather(latent: Tensor, first: Tensor, steps: Sequence[Step], keep: Tensor, mask: Tensor | None) -> Quantized:
    """``Quantized`` from the latent, level one and the steps of all levels; ``keep[Q, B, 1, 1]`` is 0 where dropped."""

    def mean(losses: Sequence[Tensor]) -> Tensor:
        rows = [kept * loss for kept, loss in zip(keep, losses, strict=True)]
        return torch.stack([row.mean() if mask is None else _masked_mean(row, mask) for row in rows]).mean()

    losses = {}
    if steps[0].codebook is not None:
        losses["codebook/mse"] = mean([step.codebook for step in steps])
    if steps[0].entropy is not None:
        losses["entropy/codes"] = torch.stack([step.entropy for step in steps]).mean()
    codes, revived = torch.stack([step.codes for step in steps], 1), [step.revived for step in steps]
    return Quantized(latent, first, codes, mean([step.commitment for step in steps]), revived, losses)


def around(latent: Tensor, quantized: Tensor, attached: bool) -> Tensor:
    """The values of ``quantized`` with a gradient to ``latent``: its own where it is ``attached``, else unchanged."""
    return quantized if attached else straight_through(latent, quantized)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values.mean(-1) * mask).sum() / mask.sum()
