"""How much each task of the chain counts: fixed weights, dynamic weight averaging, uncertainty.

Sources: Liu et al. 2019 (arXiv 1803.10704, section 3.2, dynamic weight average), which TokenChain uses over epochs, and
Kendall et al. 2018 (arXiv 1705.07115, weighting by homoscedastic uncertainty).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from speechtok.errors import ConfigError


class DynamicWeights:
    """Weights that sum to the number of tasks; a task whose loss falls more slowly counts more.

    ``w_k = K exp(r_k / T) / sum_i exp(r_i / T)`` with ``r_k`` the mean loss of the last epoch over that of the epoch
    before; one in the first two epochs.

    Args:
        tasks: names.
        temperature: T; large values make the weights equal. The source has 2.
    """

    def __init__(self, tasks: Sequence[str], temperature: float = 2.0):
        if not 0 < temperature < math.inf:
            raise ConfigError(f"temperature of the dynamic weights is {temperature}; give a number above 0")
        self.tasks, self.temperature = tuple(tasks), temperature
        self.history: list[dict[str, float]] = []
        self._sums = dict.fromkeys(self.tasks, 0.0)
        self._steps = 0

    def observe(self, losses: Mapping[str, float]) -> None:
        """Losses of one step, by task."""
        for task in self.tasks:
            self._sums[task] += float(losses[task])
        self._steps += 1

    def end_epoch(self) -> None:
        """Keep the means of the steps since the last call. Raises ConfigError where there was none."""
        if not self._steps:
            raise ConfigError("an epoch without a step has no losses to balance by")
        self.history.append({task: total / self._steps for task, total in self._sums.items()})
        self._sums, self._steps = dict.fromkeys(self.tasks, 0.0), 0

    @property
    def weights(self) -> dict[str, float]:
        """Of the epoch that is running, by task."""
        if len(self.history) < 2:
            return dict.fromkeys(self.tasks, 1.0)
        before, last = self.history[-2:]
        powers = [last[task] / max(before[task], 1e-12) / self.temperature for task in self.tasks]
        highest = max(powers)  # taken away, so that no exponential overflows
        shares = [math.exp(power - highest) for power in powers]
        return {task: len(shares) * share / sum(shares) for task, share in zip(self.tasks, shares, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"history": self.history, "sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.history, self._sums, self._steps = list(state["history"]), dict(state["sums"]), int(state["steps"])


class UncertaintyWeights(nn.Module):
    """A learned log-variance per task: ``sum_k exp(-s_k) L_k + s_k``, beginning at the plain sum."""

    PACE = 30.0
    """Adam moves a parameter by about the rate of the step, whatever its gradient: a log-variance would hardly move
    in a few hundred steps at the rate of a network. So the parameter is ``s / PACE``."""

    def __init__(self, tasks: Sequence[str]):
        super().__init__()
        self.tasks = tuple(tasks)
        self.slow = nn.Parameter(torch.zeros(len(self.tasks)))

    @property
    def log_variance(self) -> Tensor:
        """``s``, by task."""
        return self.PACE * self.slow

    @property
    def weights(self) -> dict[str, float]:
        """``exp(-s)``, by task."""
        return dict(zip(self.tasks, torch.exp(-self.log_variance).tolist(), strict=True))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the losses of all tasks."""
        each, log_variance = torch.stack([losses[task] for task in self.tasks]), self.log_variance
        return (torch.exp(-log_variance) * each + log_variance).sum()
