"""Tokens with their answers as arrays, and whole utterances side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechtok.bench.facts import Item


@dataclass
class Examples:
    """Utterances that a probe can learn from or be tested on, and why the others of the part cannot be used."""

    items: list[Item] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    """Codes ``[N, Q]`` or features ``[N, D]`` of each."""
    targets: list[np.ndarray] = field(default_factory=list)
    """Whole numbers ``[L]`` of each, as the goal makes them."""
    failures: list[tuple[Item, str]] = field(default_factory=list)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each."""
        return np.array([len(row) for row in self.rows])


class Batch(NamedTuple):
    """Utterances side by side."""

    rows: Tensor
    """``codes[B, N, Q]`` (whole numbers) or ``features[B, N, D]`` (float32), 0 in padding."""
    lengths: Tensor
    """Frames, ``[B]``, on the CPU."""
    targets: list[Tensor]
    """``[L]`` each, on the CPU."""


def batch_of(examples: Examples, picks: Sequence[int]) -> Batch:
    """These utterances, padded to the longest of them."""
    rows = [torch.from_numpy(_number(examples.rows[pick])) for pick in picks]
    targets = [torch.from_numpy(examples.targets[pick]) for pick in picks]
    return Batch(pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows]), targets)


def in_order(examples: Examples, size: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """All utterances once, the short ones first, with their numbers."""
    order = np.argsort(examples.lengths, kind="stable")
    for first in range(0, len(order), size):
        picks = order[first : first + size]
        yield picks, batch_of(examples, picks)


def _number(row: np.ndarray) -> np.ndarray:
    return row.astype(np.float32 if row.dtype.kind == "f" else np.int64)
