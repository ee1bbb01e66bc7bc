"""What codebooks exchange with the other processes of a run, so that all of them stay the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def processes() -> int:
    """How many there are."""
    return torch.distributed.get_world_size() if _distributed() else 1


def process() -> int:
    """Which one this is."""
    return torch.distributed.get_rank() if _distributed() else 0


def all_reduce(tensor: Tensor) -> None:
    """Sum the statistics of every process, so that all codebooks stay the same."""
    if _distributed():
        torch.distributed.all_reduce(tensor)


def broadcast(tensor: Tensor) -> None:
    """Overwrite ``tensor`` with that of the first process."""
    if _distributed():
        torch.distributed.broadcast(tensor, 0)


def rows_of_all(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """This process's ``rows`` of what ``draw`` makes for the whole batch: together they draw as a single one would."""
    return draw(rows * processes())[rows * process() : rows * (process() + 1)]


def pick(vectors: Tensor, count: int) -> Tensor:
    """``count`` random vectors of the whole batch, ``[count, D]``, the same in every process.

    The batch is the processes' ``vectors[M, D]`` one after the other; each brings those of its own.
    """
    sizes = torch.zeros(processes(), dtype=torch.long, device=vectors.device)
    sizes[process()] = len(vectors)
    all_reduce(sizes)
    index = torch.randint(int(sizes.sum()), (count,), device=vectors.device)
    broadcast(index)
    index = index - sizes[: process()].sum()
    mine = (index >= 0) & (index < len(vectors))
    picks = vectors.new_zeros(count, vectors.shape[1])
    picks[mine] = vectors[index[mine]]
    all_reduce(picks)
    return picks


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
