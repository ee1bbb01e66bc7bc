"""The text interface of the chain: discrete symbols forwards, gradients backwards.

Sources: TokenChain (arXiv 2510.06201) after Tjandra et al. 2018 (arXiv 1810.13107, end-to-end feedback in a speech
chain); Bengio et al. 2013 for the straight-through estimator, Jang et al. 2017 and Maddison et al. 2017 for
Gumbel-softmax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.nn.noise import gumbel


@dataclass
class Temperature:
    """Temperature over the epochs of the chain: fixed, or falling from ``first`` to ``last``."""

    schedule: Literal["fixed", "linear", "exponential", "cosine"] = "fixed"
    first: float = 1.0
    last: float = 0.1
    """Of the last epoch; a fixed temperature stays at ``first``."""

    def __post_init__(self) -> None:
        if not (0 < self.first < math.inf and 0 < self.last < math.inf):
            raise ConfigError(f"temperature: first={self.first} and last={self.last} must be numbers above 0")

    def at(self, epoch: float, epochs: int) -> float:
        """Of ``epoch``, counted from 0; ``epochs`` is how many there are."""
        done = min(1.0, max(0.0, epoch / max(1, epochs - 1)))
        if self.schedule == "linear":
            return self.first + (self.last - self.first) * done
        if self.schedule == "exponential":
            return self.first * (self.last / self.first) ** done
        if self.schedule == "cosine":
            return self.last + (self.first - self.last) * 0.5 * (1 + math.cos(math.pi * done))
        return self.first


def st_argmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The likeliest symbol as a one-hot row, with the gradient of the softmax: ``[..., C] -> [..., C]``."""
    return straight_through((logits / temperature).softmax(-1))


def st_gumbel(logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
    """A drawn symbol as a one-hot row, with the gradient of the Gumbel-softmax: ``[..., C] -> [..., C]``.

    What is drawn follows ``softmax(logits)`` at any temperature; the temperature decides how sharp the gradient is.
    """
    return straight_through(((logits + gumbel(logits, generator)) / temperature).softmax(-1))


def straight_through(soft: Tensor) -> Tensor:
    """One-hot rows of the largest entries forwards, ``soft[..., C]`` backwards."""
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())  # in this order nothing is rounded away from 0 and 1


ESTIMATORS = {"argmax": st_argmax, "gumbel": st_gumbel}
"""By the names that a recipe uses."""
