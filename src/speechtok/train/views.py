"""What each part of a codec hears of a crop that shall be reconstructed: its encoder, and its timbre encoder.

Both are pure functions of ``(seed, step)``, as the crops themselves are, whatever the number of processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.train.data import Crops
from speechtok.train.perturbation import perturb

PERTURBATION = 1
"""Marks the draws of the factors, so that they are not those of the crops."""


@dataclass
class ViewsConfig:
    """How what is heard differs from the target."""

    perturbation: float = 1.0
    """Largest factor by which the encoder hears pitch and formants moved, up or down; the target stays as it is.
    1 switches it off."""
    reference_seconds: float = 3.0
    """Length of the part of the utterance that a codec with ``codec.timbre`` is told the voice by."""

    def __post_init__(self) -> None:
        if not 1 <= self.perturbation <= 2:
            raise ConfigError(f"views.perturbation is {self.perturbation}; give a factor of 1 (off) to 2")
        if not 0 < self.reference_seconds < math.inf:
            raise ConfigError(f"views.reference_seconds is {self.reference_seconds}; give a number above 0")


class Views(NamedTuple):
    """What is heard of a batch."""

    heard: Tensor
    """By the encoder, ``[B, T]``."""
    reference: Tensor
    """By the timbre encoder, ``[B, R]``."""
    lengths: Tensor | None = None
    """Samples of each reference, ``[B]``; zeros beyond."""

    def to(self, device: torch.device) -> Views:
        """The same on a device."""
        return Views(*(None if one is None else one.to(device) for one in self))


class Hearing:
    """The views of every step.

    Args:
        rate: of the crops.
        timbre: whether references are needed.
    """

    def __init__(self, config: ViewsConfig, crops: Crops, rate: int, timbre: bool):
        self.config, self.crops, self.rate, self.timbre = config, crops, rate, timbre

    def __call__(self, wave: np.ndarray, step: int, process: int = 0, processes: int = 1) -> Views:
        """Views of the crops ``wave[B, T]``, this process's share of the batch of ``step``."""
        heard = torch.from_numpy(self.heard(wave, step, process, processes))
        if not self.timbre:
            return Views(heard, heard)
        samples = round(self.config.reference_seconds * self.rate)
        return Views(heard, *map(torch.from_numpy, self.crops.references(step, samples, process, processes)))

    def heard(self, wave: np.ndarray, step: int, process: int = 0, processes: int = 1) -> np.ndarray:
        """What the encoder hears of the same crops: they themselves, or perturbed where the config says so."""
        if self.config.perturbation == 1:
            return wave
        largest = math.log(self.config.perturbation)
        draws = np.random.default_rng((self.crops.seed, step, PERTURBATION))
        factors = np.exp(draws.uniform(-largest, largest, self.crops.batch))
        return perturb(wave, factors[self.crops.share(process, processes)], self.rate)
