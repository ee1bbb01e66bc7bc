"""Filling in masked levels by confidence: the decoding of SoundStorm (Borsos et al. 2023), after MaskGIT.

Levels follow one another. In each, all masked frames are answered at once, the surest are kept and the others asked
again; how many stay masked follows a cosine (Chang et al. 2022, section 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.nn.noise import gumbel
from speechtok.nn.soundstorm import SoundStorm


@dataclass
class UnmaskingConfig:
    """How levels are filled in."""

    steps: tuple[int, ...] = (16,)
    """Passes of each acoustic level, the coarsest first; levels beyond the list have one."""
    temperature: float = 1.0
    """Of the codes that are drawn where a level has several passes; 0 takes the likeliest, as a single pass does."""
    noise: float = 0.0
    """Gumbel noise on the logarithm of the confidence, which falls to none with the last pass; 0: none at all."""

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ConfigError(f"unmasking.steps={list(self.steps)}; give 1 or more passes of at least the first level")
        for name in ("temperature", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"unmasking.{name} is {getattr(self, name)}; give 0 or more")

    def passes(self, level: int) -> int:
        """Of a level, from 1."""
        return self.steps[level - 1] if level <= len(self.steps) else 1


def left(count: Tensor, done: int, steps: int) -> Tensor:
    """How many of ``count[B]`` frames stay masked after ``done`` of ``steps`` passes; none after the last."""
    return torch.floor(count * math.cos(0.5 * math.pi * done / steps) + 1e-6).long() * (done < steps)


@torch.inference_mode()
def unmask(
    model: SoundStorm,
    semantic: Tensor,
    prompt: Tensor,
    lengths: Tensor | None = None,
    config: UnmaskingConfig | None = None,
    seed: int = 0,
) -> Tensor:
    """All levels of utterances that begin with a prompt: ``[B, Q, P + N]``, whose first P frames are the prompt.

    Args:
        model: in evaluation mode.
        semantic: codes ``[B, N]`` of the first level, after the prompt.
        prompt: codes of all levels ``[B, Q, P]`` of what the voice is heard from.
        lengths: frames of each row of ``semantic``, ``[B]``; all where None. Codes beyond them are 0.
        seed: of all draws.
    """
    config = config or UnmaskingConfig()
    device, (batch, frames) = semantic.device, semantic.shape
    heard = prompt.shape[2]
    lengths = torch.full((batch,), frames, device=device) if lengths is None else lengths.to(device)
    codes = torch.zeros(batch, model.levels, heard + frames, dtype=torch.long, device=device)
    codes[:, :, :heard], codes[:, 0, heard:] = prompt, semantic
    places = torch.arange(heard + frames, device=device)
    inside = places < heard + lengths[:, None]
    targets = inside & (places >= heard)
    masks = torch.zeros_like(codes, dtype=torch.bool)
    masks[:, 1:] = targets[:, None]
    draws = torch.Generator().manual_seed(seed)
    for level in range(1, model.levels):
        steps = config.passes(level)
        for done in range(1, steps + 1):
            logits = model.answers(model.states(codes, masks, inside), level)
            drawn, confidence = _choose(logits, config.temperature if steps > 1 else 0.0, draws)
            if config.noise and done < steps:
                confidence += config.noise * (1 - done / steps) * gumbel(confidence, draws)
            asked = masks[:, level]
            codes[:, level] = torch.where(asked, drawn, codes[:, level])
            # what was kept before is never asked again, whatever the network thinks of it now
            order = confidence.masked_fill(~asked, math.inf).argsort(1).argsort(1)
            masks[:, level] = asked & (order < left(lengths, done, steps)[:, None])
    return codes.masked_fill(~inside[:, None], 0)


def _choose(logits: Tensor, temperature: float, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """Codes ``[B, N]`` and the logarithm of their chance, of ``logits[B, N, K]``."""
    scores = logits + temperature * gumbel(logits, draws) if temperature else logits
    drawn = scores.argmax(-1)
    return drawn, logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
