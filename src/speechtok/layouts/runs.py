"""Runs of equal frames said once, with how long they last."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from speechtok.errors import ConfigError
from speechtok.layouts.base import Fault, Layout, Parsed, codes_of, register, wrong_code
from speechtok.layouts.vocabulary import Vocabulary


def run_lengths(codes: np.ndarray, longest: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Runs of equal frames.

    Args:
        codes: ``[Q, N]``; frames are equal when all their levels are.
        longest: cut longer runs into pieces of this many frames and a last one of what is left.

    Returns:
        the frame that each run has, ``[Q, R]``, and its length, ``[R]``; ``np.repeat`` along frames undoes it.
    """
    starts = np.flatnonzero(np.concatenate([[True], (codes[:, 1:] != codes[:, :-1]).any(axis=0)]))
    lengths = np.diff(np.append(starts, codes.shape[1]))
    if longest is not None:
        pieces = -(-lengths // longest)
        last = np.cumsum(pieces) - 1
        rest = lengths - (pieces - 1) * longest
        starts, lengths = np.repeat(starts, pieces), np.full(int(pieces.sum()), longest)
        lengths[last] = rest
    return codes[:, starts], lengths


@register
class Dedup(Layout):
    """Each run of equal frames as its Q codes and one duration: (Q + 1) steps per run.

    Frames are equal when all levels of the vocabulary are, so the layout serves a vocabulary of one level best
    (``Vocabulary.of(tokens.semantic, durations=64)``). A run longer than the largest duration is said in pieces. The
    same frame in two pieces that are not full is understood, though ``encode`` writes no such thing.
    """

    name: ClassVar[str] = "dedup"

    def __init__(self, vocabulary: Vocabulary) -> None:
        if not vocabulary.durations:
            raise ConfigError("dedup needs a vocabulary with durations: Vocabulary.of(tokens, durations=64)")
        super().__init__(vocabulary)

    def _lay(self, codes: np.ndarray) -> np.ndarray:
        frames, lengths = run_lengths(codes, self.vocabulary.durations)
        ids = frames + np.array(self.vocabulary.level_starts)[:, None]
        return np.concatenate([ids, lengths[None] + self.vocabulary.duration_start - 1]).T.reshape(1, -1)

    def _parse(self, ids: np.ndarray) -> Parsed:
        ids, width = ids[0], self.vocabulary.levels + 1
        place = np.arange(len(ids)) % width
        is_code = place < width - 1
        codes, fine = codes_of(self.vocabulary, ids, np.where(is_code, place, 0))
        lengths = ids - self.vocabulary.duration_start + 1
        right = np.where(is_code, fine, (lengths >= 1) & (lengths <= self.vocabulary.durations))
        fault = self._fault(ids, right, place)
        runs = (fault.at if fault else len(ids)) // width
        table = codes[: runs * width].reshape(runs, width).T[:-1]
        return Parsed(np.repeat(table, lengths[: runs * width].reshape(runs, width)[:, -1], axis=1), fault)

    def _fault(self, ids: np.ndarray, right: np.ndarray, place: np.ndarray) -> Fault | None:
        wrong = np.flatnonzero(~right)
        if len(wrong):
            at = int(wrong[0])
            number, row = int(ids[at]), int(place[at])
            if row < self.vocabulary.levels:
                return Fault(at, wrong_code(self.vocabulary, number, row))
            return Fault(at, f"{number} ({self.vocabulary.meaning(number)}) where a duration is due")
        if len(ids) % (self.vocabulary.levels + 1):
            return Fault(len(ids), "the sequence ends before the duration of its last frame")
        return None
