"""Speaker removal: a critic learns to name the speaker from the codes, and its reversed gradient makes that harder.

Gradient reversal (Ganin and Lempitsky 2015) against speakers, as in SSVC, PromptCodec and FACodec; the critic is a
small network of our own. It can also be asked for what a speaker network hears, where nobody has named the speakers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.guidance.verification import UNNAMED
from speechtok.nn.pooling import statistics, sums
from speechtok.nn.quantizers.processes import all_reduce, processes
from speechtok.nn.reversal import reverse

NOBODY = -1
"""Number of a speaker whom nobody named."""


@dataclass
class ReversalConfig:
    """How the speaker is removed."""

    content: Literal["first", "all"] = "first"
    """What must not tell the speaker: level one, or the sum of all levels."""
    strength: float = 1.0
    """What the critic's gradient is multiplied by, reversed, on its way into the codec. 0 only watches."""
    start: int = 0
    """Step before which the strength is 0, while the critic already learns."""
    ramp: int = 1000
    """Steps over which the strength then rises."""
    width: int = 256
    """Of the critic."""

    def __post_init__(self) -> None:
        require_whole(self, 0, "start", "ramp", section="guides.reversal.")
        require_whole(self, 1, "width", section="guides.reversal.")
        if not 0 <= self.strength < float("inf"):
            raise ConfigError(f"guides.reversal.strength is {self.strength}; give 0 or more, it is reversed here")

    def strength_at(self, step: int) -> float:
        """0 before ``start``, then rising linearly to ``strength``."""
        return self.strength * min(1.0, max(0.0, (step - self.start + 1) / max(1, self.ramp)))


class Critic(nn.Module):
    """What a speaker's content gives away: ``content[B, N, D]`` to answers ``[B, outputs]``."""

    def __init__(self, dimension: int, width: int, outputs: int):
        super().__init__()
        # the norm: content must not hide by growing small
        self.frames = nn.Sequential(nn.LayerNorm(dimension), nn.Linear(dimension, width), nn.GELU())
        self.answer = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, outputs))

    def forward(self, content: Tensor, strength: float, mask: Tensor | None = None) -> Tensor:
        """``mask[B, N]`` is True on real frames; the gradient leaves through ``content`` reversed."""
        return self.answer(statistics(*sums(self.frames(reverse(content, strength)), mask)))


class Question(Protocol):
    """What the critic is asked."""

    outputs: int
    """Numbers in its answer."""

    def __call__(self, answers: Tensor, wave: Tensor, lengths: Tensor | None, step: int) -> dict[str, Tensor]:
        """Losses of ``answers[B, outputs]`` for crops ``wave[B, T]`` with ``lengths[B]`` samples (None: all)."""
        ...


class WhoSpeaks:
    """The speaker's name, among those of the manifests.

    Args:
        names: of the speaker of every training utterance. Those whom nobody named do not count.
        picks: ``step -> utterances[B]`` of this process's crops.

    Raises:
        ConfigError: fewer than two speakers are named.
    """

    def __init__(self, names: Sequence[str], picks: Callable[[int], np.ndarray]):
        named = sorted({name for name in names if name.lower() not in UNNAMED})
        if len(named) < 2:
            raise ConfigError(
                f"guides.reversal: the training manifests name {len(named)} speaker(s), two are needed; fill the"
                f" column speaker, or name a speaker model in guides.reversal.teacher"
            )
        numbers = {name: number for number, name in enumerate(named)}
        self.numbers = np.array([numbers.get(name, NOBODY) for name in names])
        self.outputs, self.picks = len(named), picks

    def __call__(self, answers: Tensor, wave: Tensor, lengths: Tensor | None, step: int) -> dict[str, Tensor]:
        """``reversal/cross_entropy`` in nats, and ``reversal/accuracy``, 0 to 1, to watch."""
        speakers = torch.from_numpy(self.numbers[self.picks(step)]).to(answers.device)
        counted = speakers != NOBODY
        total = counted.sum(dtype=torch.float32)
        all_reduce(total)  # shares of the batch may name different numbers; their mean is then that of the whole
        share = (total / processes()).clamp_min(1e-6)
        entropy = F.cross_entropy(answers.float(), speakers, ignore_index=NOBODY, reduction="sum")
        right = (answers.detach().argmax(1) == speakers).float() * counted
        return {"reversal/cross_entropy": entropy / share, "reversal/accuracy": right.sum() / share}


class WhatIsHeard:
    """The embedding that a frozen speaker network has of the crop.

    Args:
        hear: ``(wave[B, T], lengths[B]) -> [B, outputs]``.
    """

    def __init__(self, hear: Callable[[Tensor, Tensor | None], Tensor], outputs: int):
        self.hear, self.outputs = hear, outputs

    def __call__(self, answers: Tensor, wave: Tensor, lengths: Tensor | None, step: int) -> dict[str, Tensor]:
        """``reversal/cosine``, 1 - cosine."""
        return {"reversal/cosine": 1 - F.cosine_similarity(answers.float(), self.hear(wave, lengths), dim=1).mean()}
