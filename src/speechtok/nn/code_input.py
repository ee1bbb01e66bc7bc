"""Codes of one or several levels as vectors for a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from speechtok.nn.vectors import unit_scale


class CodeInput(nn.Module):
    """Codes ``[B, N, Q]`` to vectors ``[B, N, E]``, with one table per level.

    Args:
        width: E.
        sizes: codes of each level.
        vectors: where the tables begin, ``[K, D]`` each; tables of another width than E are mapped to it linearly.
        attends: whether the levels of a frame are weighed by a small perceptron; otherwise they are summed.
    """

    def __init__(
        self, width: int, sizes: Sequence[int], vectors: Sequence[Tensor] | None = None, attends: bool = False
    ):
        super().__init__()
        vectors = [torch.randn(size, width) for size in sizes] if vectors is None else [*map(unit_scale, vectors)]
        self.tables = nn.ModuleList(nn.Embedding.from_pretrained(one, freeze=False) for one in vectors)
        self.maps = nn.ModuleList(
            nn.Identity() if one.shape[1] == width else nn.Linear(one.shape[1], width) for one in vectors
        )
        scores = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1, bias=False))
        self.scores = scores if attends and len(sizes) > 1 else None

    def forward(self, codes: Tensor) -> Tensor:
        """``codes[B, N, Q] -> [B, N, E]``."""
        levels = zip(self.maps, self.tables, codes.unbind(-1), strict=True)
        found = torch.stack([fit(table(code)) for fit, table, code in levels], -2)
        return found.sum(-2) if self.scores is None else (found * self.scores(found).softmax(-2)).sum(-2)
