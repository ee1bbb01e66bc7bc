"""The narrow space in which some codebooks choose: a linear map down, and one back up."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """``down`` to ``width`` numbers and ``up`` again, ``[..., D] -> [..., width] -> [..., D]``."""

    def __init__(self, dimension: int, width: int):
        super().__init__()
        self.down, self.up = nn.Linear(dimension, width), nn.Linear(width, dimension)

    @torch.no_grad()
    def start_down(self, vectors: Tensor) -> None:
        """``down`` becomes the principal components of ``vectors[M, D]`` at variance 1."""
        mean, directions, deviations = principal(vectors, self.down.out_features)
        self.down.weight.copy_(directions / deviations.clamp_min(1e-6).unsqueeze(1))
        self.down.bias.copy_(-self.down.weight @ mean)

    @torch.no_grad()
    def start_up(self, vectors: Tensor, values: Tensor) -> None:
        """``up`` becomes the best linear way from ``values[M, width]``, what codes stand for, to ``vectors[M, D]``."""
        middle, average = values.mean(0), vectors.mean(0)
        spread = values - middle
        # a little ridge: in small samples some columns do not vary
        gram = spread.t() @ spread + 1e-4 * len(values) * torch.eye(values.shape[1], device=values.device)
        self.up.weight.copy_(torch.linalg.solve(gram, spread.t() @ (vectors - average)).t())
        self.up.bias.copy_(average - self.up.weight @ middle)


def principal(vectors: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean ``[D]``, ``count`` unit directions ``[count, D]`` and the deviations ``[count]`` of ``vectors[M, D]`` along.

    The strongest first. Beyond D there are no more principal ones: the others are random.
    """
    mean = vectors.mean(0)
    centred = vectors - mean
    _, directions = torch.linalg.eigh(centred.t() @ centred / max(1, len(vectors) - 1))
    directions = directions.t().flip(0)[:count]
    missing = count - len(directions)
    if missing:
        random = nn.functional.normalize(torch.randn(missing, vectors.shape[1], device=vectors.device), dim=1)
        directions = torch.cat([directions, random])
    return mean, directions, (centred @ directions.t()).std(0, correction=0)
