"""SoundStorm (Borsos et al. 2023): acoustic levels from the semantic one, all frames of a level at a time.

A conformer hears the sum of the vectors of all levels of a frame, where a level that is not known yet has the vector of
its mask. Trained by masking: what a voice has said so far is known in full (the prompt), after it one level is partly
hidden and every finer one wholly (section 3.3). ``nn.unmasking`` fills in what is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.conformer import Conformer, ConformerConfig
from speechtok.nn.vectors import unit_scale


@dataclass
class SoundStormConfig:
    """Shape of the network; the defaults are small, those of the paper stand in ``recipes/s2a-paper.yaml``."""

    codebook_sizes: tuple[int, ...] = (1024,) * 8
    """Codes of each level, the semantic one first; all others are foretold."""
    code_dimension: int = 128
    """Numbers that stand for a code; where it is not ``conformer.width``, every level has a linear map to that."""
    heads: Literal["own", "tied"] = "own"
    """What answers for a level: a linear layer of its own, or one to ``code_dimension`` and the codes' own vectors."""
    conformer: ConformerConfig = field(
        default_factory=lambda: ConformerConfig(256, 4, 5, 512, 1, 31, 0.1, positions="rotary")
    )

    def __post_init__(self) -> None:
        require_whole(self, 1, "code_dimension", section="network.")
        if len(self.codebook_sizes) < 2 or min(self.codebook_sizes) < 2:
            raise ConfigError(
                f"network.codebook_sizes={list(self.codebook_sizes)}; give a semantic and at least one acoustic level"
            )


class Hidden(NamedTuple):
    """What training hides of a batch."""

    level: Tensor
    """``[B]``, the level that is partly hidden, from 1."""
    prompt: Tensor
    """``[B]``, frames at the beginning of which nothing is hidden."""
    frames: Tensor
    """``[B, N]``, True where ``level`` is hidden."""

    def masks(self, levels: int) -> Tensor:
        """``[B, Q, N]``, True where the network hears a mask: also every finer level after the prompt."""
        order = torch.arange(levels, device=self.level.device)[None, :, None] - self.level[:, None, None]
        places = torch.arange(self.frames.shape[1], device=self.level.device)
        after = (places >= self.prompt[:, None])[:, None]
        return ((order == 0) & self.frames[:, None]) | ((order > 0) & after)


def hide(lengths: Tensor, frames: int, levels: int, generator: torch.Generator, level: int | None = None) -> Hidden:
    """Draw what is hidden of utterances of ``lengths[B]`` frames, padded to ``frames`` (section 3.3).

    The end of the prompt and the level are uniform. Of the frames after the prompt the share ``cos(u)``, u uniform
    between 0 and pi / 2, is hidden, rounded up; the paper draws every frame by itself with that chance, which may hide
    none.

    Args:
        levels: Q.
        level: take this one instead of drawing.
    """
    lengths, batch = lengths.cpu(), len(lengths)
    prompt = (torch.rand(batch, generator=generator) * lengths).long().clamp_max(lengths - 1)
    drawn = torch.randint(1, levels, (batch,), generator=generator)
    share = torch.cos(torch.rand(batch, generator=generator) * (math.pi / 2))
    count = torch.ceil(share * (lengths - prompt)).long().clamp_min(1)
    order = torch.rand(batch, frames, generator=generator)
    places = torch.arange(frames)
    order = order.masked_fill((places < prompt[:, None]) | (places >= lengths[:, None]), math.inf)
    hidden = order.argsort(1).argsort(1) < count[:, None]
    return Hidden(drawn if level is None else torch.full_like(drawn, level), prompt, hidden)


class SoundStorm(nn.Module):
    """Codes of all levels, some of them masked, to answers for one level."""

    def __init__(self, config: SoundStormConfig):
        super().__init__()
        self.config = config
        sizes, dimension, width = config.codebook_sizes, config.code_dimension, config.conformer.width
        # the semantic level is always known; the others have their mask behind the last code
        self.tables = nn.ModuleList(nn.Embedding(size + (level > 0), dimension) for level, size in enumerate(sizes))
        self.maps = nn.ModuleList(
            nn.Identity() if dimension == width else nn.Linear(dimension, width, bias=False) for _ in sizes
        )
        self.conformer = Conformer(config.conformer, width)
        outputs = [dimension if config.heads == "tied" else size for size in sizes[1:]]
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in outputs)

    @property
    def levels(self) -> int:
        """Q, with the semantic one."""
        return len(self.config.codebook_sizes)

    @torch.no_grad()
    def begin_with(self, vectors: Sequence[Tensor]) -> None:
        """Let the vectors of codes begin as a codec's, ``[K, D]`` of each level, brought to one scale.

        Raises:
            ConfigError: they have another shape.
        """
        wanted = [(size, self.config.code_dimension) for size in self.config.codebook_sizes]
        found = [tuple(one.shape) for one in vectors]
        if found != wanted:
            raise ConfigError(
                f"the codec's code vectors have shapes {found}, the network's {wanted}; set network.codebook_sizes and"
                " network.code_dimension to those, or start=random"
            )
        for table, one in zip(self.tables, vectors, strict=True):
            table.weight[: len(one)].copy_(unit_scale(one))

    def states(self, codes: Tensor, masks: Tensor, inside: Tensor | None = None) -> Tensor:
        """What the conformer makes of a batch, ``[B, N, width]``.

        Args:
            codes: ``[B, Q, N]``; what they are under a mask does not matter.
            masks: ``[B, Q, N]``, True where a level is not known; of the semantic one nothing may be.
            inside: ``[B, N]``, False on padding.
        """
        total = 0
        for level, (table, fit) in enumerate(zip(self.tables, self.maps, strict=True)):
            known = codes[:, level]
            if level:
                known = known.masked_fill(masks[:, level], self.config.codebook_sizes[level])
            total = total + fit(table(known))
        return self.conformer(total, mask=inside)

    def answers(self, states: Tensor, level: int) -> Tensor:
        """Logits ``[..., K]`` of a level, from 1, of ``states[..., width]``, in float32."""
        found = self.heads[level - 1](states)
        if self.config.heads == "tied":
            vectors = self.tables[level].weight[: self.config.codebook_sizes[level]]
            found = F.linear(found, vectors) / math.sqrt(self.config.code_dimension)
        return found.float()

    def score(self, codes: Tensor, lengths: Tensor, hidden: Hidden) -> tuple[Tensor, Tensor]:
        """Cross-entropy and hits of every hidden frame of its row's level, ``[M]`` each, by levels.

        Args:
            codes: ``[B, Q, N]``.
            lengths: frames of each utterance, ``[B]``.
        """
        hidden = Hidden(*(one.to(codes.device) for one in hidden))
        inside = torch.arange(codes.shape[2], device=codes.device) < lengths.to(codes.device)[:, None]
        states = self.states(codes, hidden.masks(self.levels), inside)
        losses, hits = [], []
        for level in range(1, self.levels):
            chosen = hidden.frames & (hidden.level == level)[:, None]
            logits, wanted = self.answers(states[chosen], level), codes[:, level][chosen]
            losses.append(F.cross_entropy(logits, wanted, reduction="none"))
            hits.append((logits.argmax(-1) == wanted).float())
        return torch.cat(losses), torch.cat(hits)

    def parameters_count(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())
