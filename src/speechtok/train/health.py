"""Codebook health: how many codes are in use, how evenly, which were revived, and when a level has collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from speechtok.train.recipe import Alarm


def codebook_health(codes: Tensor, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Per level of ``codes[Q, N]``, with so many codes each: share that occurs, how many never do, and the perplexity.

    The perplexity is ``exp(H)`` of the codes' frequencies: how many equally likely codes would say as much.
    """
    counts = [torch.bincount(row, minlength=size) for row, size in zip(codes, sizes, strict=True)]
    unused = [int((row == 0).sum()) for row in counts]
    return {
        "codes/used": [1 - dead / size for dead, size in zip(unused, sizes, strict=True)],
        "codes/dead": unused,
        "codes/perplexity": [float(torch.special.entr(row / row.sum()).sum().exp()) for row in counts],
    }


class Watch:
    """Counts per level what was revived since the last validation, and validations in a row with low perplexity."""

    def __init__(self, sizes: Sequence[int], alarm: Alarm):
        self.sizes, self.alarm = tuple(sizes), alarm
        self.revived, self.low = [0] * len(self.sizes), [0] * len(self.sizes)

    def step(self, revived: Sequence[int]) -> None:
        """Count the codes one training step revived, per level; empty where it had no codebooks."""
        for level, count in enumerate(revived):
            self.revived[level] += count

    def validation(self, health: dict[str, list[float]]) -> tuple[dict[str, list[float]], list[str]]:
        """Add the revived codes to ``health``, and say in one line which levels have collapsed."""
        least = [self.alarm.perplexity * size for size in self.sizes]
        perplexities = health["codes/perplexity"]
        self.low = [count + 1 if p < low else 0 for count, p, low in zip(self.low, perplexities, least, strict=True)]
        lines = [
            f"level {level} has collapsed: perplexity {perplexities[level]:.1f} with {self.sizes[level]} codes, "
            f"below {least[level]:.1f} for {count} validations"
            for level, count in enumerate(self.low)
            if count >= self.alarm.validations
        ]
        row = health | {"codes/revived": self.revived}
        self.revived = [0] * len(self.revived)
        return row, lines

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"revived": list(self.revived), "low": list(self.low)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        self.revived, self.low = list(state["revived"]), list(state["low"])
