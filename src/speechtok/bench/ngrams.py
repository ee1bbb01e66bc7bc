"""A small fixed language model of codes: trigrams with Witten-Bell interpolation, exact and deterministic.

Source: Witten and Bell 1991, method C, in the interpolated form of Chen and Goodman 1998 (section 2.6):

    p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h))

where h is the history, h' the same without its oldest code, c counts, and T(h) is the number of different codes seen
after h. Below the single codes lie equally likely ones, so nothing has no probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechtok.errors import ConfigError

ORDER = 3


class WittenBell:
    """n-grams of whole numbers below ``size``.

    Args:
        sequences: whole numbers ``[N]`` of each utterance. Before its first one stands a sign of its own, ``size``,
            as often as a history is long; ends are not predicted.
        size: how many codes there are.
        order: n.

    Raises:
        ConfigError: nothing to learn from, or so many codes that an n-gram does not fit 63 bits.
    """

    def __init__(self, sequences: Sequence[np.ndarray], size: int, order: int = ORDER):
        if not any(len(one) for one in sequences):
            raise ConfigError("a language model of codes has nothing to learn from: no utterance was given")
        if (size + 1) ** order >= 2**63:
            raise ConfigError(f"{order}-grams of {size} codes do not fit 63 bits; take a lower order")
        self.size, self.order = size, order
        grams = np.concatenate([self._grams(one) for one in sequences])
        self._tables = [_Table(self._keys(grams[:, order - n :]), size + 1) for n in range(1, order + 1)]

    def log2_probabilities(self, sequence: np.ndarray) -> np.ndarray:
        """log2 p of every code ``[N]`` given those before it, ``[N]``."""
        grams = self._grams(sequence)
        p = np.full(len(grams), 1 / self.size)
        for n, table in enumerate(self._tables, 1):
            seen, history, kinds = table.counts(self._keys(grams[:, self.order - n :]))
            known = history > 0
            p = np.where(known, (seen + kinds * p) / np.maximum(history + kinds, 1), p)
        return np.log2(p)

    def _grams(self, sequence: np.ndarray) -> np.ndarray:
        """``[N, order]``: every code with those before it, the oldest first."""
        padded = np.concatenate([np.full(self.order - 1, self.size), np.asarray(sequence, np.int64)])
        return np.lib.stride_tricks.sliding_window_view(padded, self.order) if len(sequence) else padded[:0, None]

    def _keys(self, grams: np.ndarray) -> np.ndarray:
        """One whole number for each n-gram ``[N, n]``; without its last code it is the key by ``size + 1``."""
        return grams @ (self.size + 1) ** np.arange(grams.shape[1] - 1, -1, -1, dtype=np.int64)


class _Table:
    """Counts of n-grams and of their histories, sorted by key."""

    def __init__(self, keys: np.ndarray, base: int):
        self._base = base
        self._keys, self._seen = np.unique(keys, return_counts=True)
        self._histories, first = np.unique(self._keys // base, return_index=True)
        self._history = np.add.reduceat(self._seen, first)
        self._kinds = np.diff(np.append(first, len(self._keys)))

    def counts(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How often each n-gram and its history occurred, and how many different codes followed that; 0 where never."""
        histories = keys // self._base
        return (
            _found(self._keys, self._seen, keys),
            _found(self._histories, self._history, histories),
            _found(self._histories, self._kinds, histories),
        )


def _found(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)
