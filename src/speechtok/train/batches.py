"""Whole utterances in batches of like length, a pure function of the seed and the step.

A resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from speechtok.errors import ConfigError
from speechtok.train.devices import Devices

POOL = 16
"""Batches whose utterances are sorted by length together."""


class Batches:
    """Which utterances every step hears, every one of them exactly once per epoch.

    The last step of an epoch is the last one before another order begins, so that figures "per epoch" mean the same
    for every utterance. Batches differ in size by one at most.

    Args:
        lengths: of the utterances, ``[n]``, in any unit.
        batch: most utterances of a step.
        chosen: the utterances of an epoch, of which each has as many; all of them by default.
    """

    def __init__(self, lengths: np.ndarray, batch: int, seed: int, chosen: Callable[[int], np.ndarray] | None = None):
        self.lengths, self.batch, self.seed = np.asarray(lengths), batch, seed
        self.chosen = chosen or (lambda epoch: np.arange(len(self.lengths)))
        self.steps_per_epoch = -(-len(self.chosen(0)) // batch)
        if not self.steps_per_epoch:
            raise ConfigError("there is no utterance to learn from; correct section data of the recipe")

    def epoch(self, step: int) -> int:
        """In which epoch a step lies, from 0."""
        return step // self.steps_per_epoch

    def __call__(self, step: int) -> np.ndarray:
        """Utterances ``[B]``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.chosen(epoch))
        turn = int(np.random.default_rng((self.seed, 1, epoch)).permutation(self.steps_per_epoch)[place])
        first = turn // POOL * POOL
        ends = np.arange(self.steps_per_epoch + 1) * len(order) // self.steps_per_epoch
        start, end = ends[first], ends[min(first + POOL, self.steps_per_epoch)]
        return by_length(order[start:end], self.lengths)[ends[turn] - start : ends[turn + 1] - start]

    def share_of(self, step: int, devices: Devices) -> np.ndarray:
        """This process's utterances of a step: every so many-th, so that lengths are alike in all processes.

        Raises:
            ConfigError: the step has fewer utterances than there are processes.
        """
        picks = self(step)
        if len(picks) < devices.processes:
            raise ConfigError(f"{len(picks)} utterances cannot be shared by {devices.processes} processes")
        return picks[devices.process :: devices.processes]


def in_order(lengths: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Utterances ``[B]`` of every batch, from the shortest to the longest."""
    order = by_length(np.arange(len(lengths)), lengths)
    for first in range(0, len(order), batch):
        yield order[first : first + batch]


class EndlessBatches:
    """Passes over all utterances, each in another order, in batches of one size that may span two passes."""

    def __init__(self, lengths: np.ndarray, batch: int, seed: int):
        self.lengths, self.batch, self.seed = lengths, batch, seed

    def __call__(self, step: int) -> np.ndarray:
        """Utterances ``[B]``."""
        pool, place = divmod(step, POOL)
        drawn = self._stream(pool * POOL * self.batch, POOL * self.batch)
        batches = by_length(drawn, self.lengths).reshape(POOL, self.batch)
        return batches[np.random.default_rng((self.seed, 1, pool)).permutation(POOL)[place]]

    def _stream(self, first: int, count: int) -> np.ndarray:
        """A piece of the endless row of passes."""
        every = len(self.lengths)
        passes = range(first // every, (first + count - 1) // every + 1)
        orders = [np.random.default_rng((self.seed, 0, number)).permutation(every) for number in passes]
        start = first - passes[0] * every
        return np.concatenate(orders)[start : start + count]


def by_length(picks: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``picks`` from the shortest utterance to the longest."""
    return picks[np.argsort(lengths[picks], kind="stable")]
