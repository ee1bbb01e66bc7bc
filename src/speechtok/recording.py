"""The samples of an audio file as a sequence that is read when asked for, in memory that does not grow with it."""

from __future__ import annotations

import os
import warnings

import numpy as np

from speechtok.audio import blocks, probe, resampled_length
from speechtok.errors import AudioError
from speechtok.files import StrPath

_BLOCK_SECONDS = 4.0
_TRUSTED = ("WAV", "RF64", "FLAC")
"""Formats whose header says exactly how long they are; others are read once to be counted."""


class Recording:
    """``len(recording)`` and ``recording[start:stop]``, float32 at ``rate``, of which the starts never fall.

    The samples are those of ``audio.read(path, rate)``, bit for bit. Whoever takes all of them up to the end has the
    file checked as ``read`` checks it.

    Raises:
        AudioError: as ``read``; faults of the header at once, those of samples when they are reached.
    """

    def __init__(self, path: StrPath, rate: int):
        self._name = os.fspath(path)
        self._blocks = blocks(path, _BLOCK_SECONDS, rate)  # tells of the header's faults, and of a mix-down
        self._length = resampled_length(_frames(path), probe(path).rate, rate)
        self._start = self._stop = 0
        self._held: list[np.ndarray] = []

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        if step != 1 or start < self._start:
            raise IndexError(f"a recording is read forwards: samples before {self._start} are gone")
        while self._stop < stop:
            self._hold(next(self._blocks, None))
        self._forget(start)
        if stop == self._length:
            self._expect_end()
        joined = np.concatenate(self._held) if self._held else np.empty(0, np.float32)
        return joined[start - self._start : stop - self._start]

    def _hold(self, block: object) -> None:
        if block is None:
            raise AudioError(f"{self._name}: changed while it was read; encode it again")
        self._held.append(block.samples)  # type: ignore[attr-defined]
        self._stop += len(block)  # type: ignore[arg-type]

    def _forget(self, start: int) -> None:
        while self._held and self._start + len(self._held[0]) <= start:
            self._start += len(self._held.pop(0))

    def _expect_end(self) -> None:
        """The reader checks what it got once it has reached the end."""
        if self._stop > self._length or next(self._blocks, None) is not None:
            raise AudioError(f"{self._name}: changed while it was read; encode it again")


def _frames(path: StrPath) -> int:
    """Samples per channel that are there."""
    info = probe(path)
    if info.format.startswith(_TRUSTED):
        return info.frames
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say is said where the samples are used
        return sum(len(block) for block in blocks(path, _BLOCK_SECONDS))
