"""The adversarial side of a training step: whose turn it is, the discriminators' update, the generator's losses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from speechtok.nn.discriminators import Judges
from speechtok.train.devices import Devices
from speechtok.train.losses import adversarial_loss, discriminator_loss, feature_loss
from speechtok.train.recipe import Adversary


class GanWeights(Protocol):
    """Of the losses; those of the generator among them that come from the discriminators."""

    adversarial: float
    feature: float


class GanRecipe(Protocol):
    """What a recipe with discriminators says of them."""

    adversary: Adversary
    weights: GanWeights
    sample_rate: int


class GanState(Protocol):
    """What a training with discriminators holds of them."""

    recipe: GanRecipe
    devices: Devices
    judge: Judges
    judge_optimiser: torch.optim.Optimizer
    step: int


def adversarial_losses(state: GanState, wave: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
    """Update the discriminators whose turn it is, then ask them; empty before the adversary starts."""
    if adversarial_ramp(state.recipe, state.step) == 0:
        return {}
    real, fake = excerpts(state, wave, reconstruction)
    turn = judges_of_step(state.recipe, state.step)
    return {
        f"discriminator/{state.recipe.adversary.loss}": update_judge(state, real, fake.detach(), turn),
        **judge_losses(state, real, fake, turn),
    }


def update_judge(state: GanState, real: Tensor, fake: Tensor, turn: tuple[int, ...]) -> Tensor:
    """One discriminator update; returns its loss."""
    options = state.recipe.adversary
    with state.devices.autocast():
        judged_real, judged_fake = state.judge(real, turn), state.judge(fake, turn)
    loss = discriminator_loss(judged_real, judged_fake, options.loss, options.reduction)
    state.judge_optimiser.zero_grad(set_to_none=True)
    loss.backward()
    state.devices.average_gradients(state.judge.parameters())
    state.judge_optimiser.step()
    return loss.detach()


def judge_losses(state: GanState, real: Tensor, fake: Tensor, turn: tuple[int, ...]) -> dict[str, Tensor]:
    """What the discriminators say of the reconstruction, with gradients to the generator only."""
    options = state.recipe.adversary
    with torch.no_grad(), state.devices.autocast():
        judged_real = state.judge(real, turn)
    with frozen(state.judge):
        with state.devices.autocast():
            judged_fake = state.judge(fake, turn)
        matching = feature_loss(judged_real, judged_fake, options.features, options.reduction, state.devices.mean)
        return {
            f"adversarial/{options.loss}": adversarial_loss(judged_fake, options.loss, options.reduction),
            f"feature/{options.features}": matching,
        }


def excerpts(state: GanState, wave: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    """The same random part of every target and reconstruction, each ``[B, T']``."""
    recipe = state.recipe
    length = min(round(recipe.adversary.seconds * recipe.sample_rate), wave.shape[1])
    start = int(torch.randint(0, wave.shape[1] - length + 1, ()))
    return wave[:, start : start + length], reconstruction[:, start : start + length]


def adversarial_ramp(recipe: GanRecipe, step: int) -> float:
    """0 before the adversary starts, then rising linearly to 1."""
    if recipe.weights.adversarial == 0:
        return 0.0
    return min(1.0, max(0.0, (step - recipe.adversary.start + 1) / max(1, recipe.adversary.ramp)))


def judges_of_step(recipe: GanRecipe, step: int) -> tuple[int, ...]:
    """Indices of the sub-discriminators whose turn it is."""
    count = recipe.adversary.count
    turn = min(recipe.adversary.per_step or count, count)
    return tuple((step * turn + i) % count for i in range(turn))


@contextmanager
def frozen(module: nn.Module):
    """No gradients for the parameters of ``module`` inside the block; they still flow through it."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in module.parameters():
            parameter.requires_grad_(True)
