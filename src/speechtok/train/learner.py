"""Runs with one model and one optimiser: what they share, so that a task says only its losses and its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from speechtok.train.devices import Devices
from speechtok.train.loop import RunRecipe
from speechtok.train.optimisation import Optimisation, adamw, follow, set_rate, update


@dataclass
class LearnerRecipe(RunRecipe):
    """A run with one optimiser."""

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(betas=(0.9, 0.98)))


class Learner(ABC):
    """A trainee for ``train.loop.run``: model, its average, optimiser, step; a task adds ``corpus``.

    Args:
        model: what is trained, all of it that asks for gradients; built after the seed was set.
        weights: of the losses, by name; a loss without one is logged and counts nothing.
    """

    def __init__(self, recipe: LearnerRecipe, model: nn.Module, weights: dict[str, float]):
        self.recipe, self.weights, self.step = recipe, weights, 0
        self.devices = Devices(recipe.precision)
        self.model = model.to(self.devices.device)
        self.devices.share(self.model)
        self.average = deepcopy(self.model).requires_grad_(False).eval()
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = adamw(self.parameters, recipe.optimisation.rate, recipe.optimisation)

    @property
    def parts(self) -> dict[str, Any]:
        """Everything a checkpoint holds, by name."""
        return {"model": self.model, "average": self.average, "optimiser": self.optimiser}

    @property
    def noise_seed(self) -> int:
        """Of what is drawn in this step, the same in every process."""
        return self.recipe.seed * 1_000_003 + self.step

    @property
    def peak_rate(self) -> float:
        """Learning rate that warm-up and decay scale; a task may lower it as it goes."""
        return self.recipe.optimisation.rate

    def advance(self) -> dict[str, float]:
        """One update; see ``train.loop.Trainee``."""
        options = self.recipe.optimisation
        set_rate(self.optimiser, self.peak_rate, options, self.step, self.recipe.steps)
        self.model.train()
        # dropout masks depend on the step alone, as the data do; every process has others for its rows
        torch.manual_seed(self.noise_seed * self.devices.processes + self.devices.process)
        with self.devices.autocast():
            losses = self.losses()
        values = update(self.devices, self.optimiser, self.parameters, losses, self.weights, options.clip, self.step)
        self.step += 1
        follow(self.average, self.model, options.ema, self.step)
        return values

    @abstractmethod
    def losses(self) -> dict[str, Tensor]:
        """Losses ``group/name`` of this step on this process's share of the batch."""

    @abstractmethod
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """See ``train.loop.Trainee``; of ``self.average``."""
