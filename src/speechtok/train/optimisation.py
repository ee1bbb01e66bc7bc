"""AdamW with warm-up and cosine decay, and the one update that every trainer makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechtok.errors import TrainingError
from speechtok.train.devices import Devices


@dataclass
class Optimisation:
    """AdamW, linear warm-up, cosine decay to ``final`` times the peak rate."""

    rate: float = 1e-3
    betas: tuple[float, float] = (0.8, 0.99)
    weight_decay: float = 0.01
    """0 makes AdamW plain Adam."""
    warmup: int = 200
    final: float = 0.02
    clip: float = 5.0
    """Largest gradient norm; 0 does not limit it."""
    ema: float = 0.999
    """Decay of the averaged weights that are validated and exported; 0 makes them the current ones."""


def adamw(parameters: Iterable[nn.Parameter], rate: float, options: Optimisation) -> torch.optim.Optimizer:
    """The optimiser of ``options`` with another peak rate."""
    return torch.optim.AdamW(parameters, rate, betas=options.betas, weight_decay=options.weight_decay)


def set_rate(optimiser: torch.optim.Optimizer, peak: float, options: Optimisation, step: int, steps: int) -> None:
    """Learning rate of this step."""
    warm = min(1.0, (step + 1) / max(1, options.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    for group in optimiser.param_groups:
        group["lr"] = peak * warm * (options.final + (1 - options.final) * cosine)


def update(
    devices: Devices,
    optimiser: torch.optim.Optimizer,
    parameters: list[nn.Parameter],
    losses: Mapping[str, Tensor],
    weights: Mapping[str, float],
    clip: float,
    step: int,
) -> dict[str, float]:
    """One step down the weighted sum of the losses; one without a weight is only watched.

    Returns the losses and the norm of the gradient, as means over processes.

    Raises:
        TrainingError: a loss or the gradient is not finite; nothing has been updated then.
    """
    total = torch.stack([weights[name] * loss for name, loss in losses.items() if name in weights]).sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    devices.average_gradients(parameters)
    norm = nn.utils.clip_grad_norm_(parameters, clip or math.inf)
    means = devices.mean(torch.stack([*(loss.detach() for loss in losses.values()), norm]))
    values = dict(zip([*losses, "gradient/norm"], means.tolist(), strict=True))
    require_finite(step, values)
    optimiser.step()
    return values


def require_finite(step: int, values: Mapping[str, float]) -> None:
    """Refuse to go on with a loss or gradient that is not a number; every process sees the same means.

    Raises:
        TrainingError: names the step and the first such value.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"step {step}: {name} is {value}; lower optimisation.rate and go on from the last checkpoint"
            )


@torch.no_grad()
def follow(average: nn.Module, current: nn.Module, decay: float, step: int) -> None:
    """Move averaged weights towards the current ones; faster at first, so that they forget the initial weights."""
    decay = min(decay, (1 + step) / (10 + step))
    for averaged, value in zip(average.state_dict().values(), current.state_dict().values(), strict=True):
        if averaged.is_floating_point():
            averaged.lerp_(value, 1 - decay)
        else:
            averaged.copy_(value)
