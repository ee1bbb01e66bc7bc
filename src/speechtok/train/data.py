"""Speech for training: manifests, one packed array of samples, and crops that are a pure function of the step."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from speechtok.audio import read
from speechtok.errors import AudioError, ConfigError
from speechtok.files import atomic_path, make_folder

REFERENCES = 2
"""Marks the draws of the references, so that they are not those of the crops."""


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest."""

    path: Path
    speaker: str
    text: str


def read_manifest(path: str | Path, split: str) -> list[Utterance]:
    """Rows of ``split`` in a tab-separated manifest with the columns ``path split [speaker text]``.

    Paths are relative to the manifest's folder.

    Raises:
        ConfigError: no such file, a missing column, or no row of that split.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read this manifest ({error}); give a tab-separated file") from error
    if rows and not {"path", "split"} <= set(rows[0]):
        raise ConfigError(f"{path}: a manifest needs the tab-separated columns path and split")
    for number, row in enumerate(rows, 1):
        if row["path"] is None or row["split"] is None:
            raise ConfigError(f"{path}: row {number} has too few columns; it needs path and split, separated by tabs")
    chosen = [
        Utterance(path.parent / row["path"], row.get("speaker") or "", row.get("text") or "")
        for row in rows
        if row["split"] == split
    ]
    if not chosen:
        raise ConfigError(f"{path}: no row has split {split!r}; it has {sorted({r['split'] for r in rows})}")
    return chosen


class WaveStore:
    """Decoded utterances packed into one memory-mapped int16 array, made once and kept in a cache folder."""

    def __init__(self, samples: np.ndarray, offsets: np.ndarray):
        self.samples, self.offsets = samples, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Whole utterance, float32 ``[T]``."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]].astype(np.float32) / 32768

    @property
    def lengths(self) -> np.ndarray:
        """Samples of each utterance."""
        return np.diff(self.offsets)

    @property
    def digest(self) -> str:
        """By which a run knows its speech again, wherever it is found."""
        return hashlib.sha256(self.lengths.astype("<i8").tobytes()).hexdigest()

    @classmethod
    def build(cls, utterances: Sequence[Utterance], rate: int, cache: str | Path) -> WaveStore:
        """Read and resample every utterance, or map the copy an earlier call left in ``cache``.

        Raises:
            AudioError: a file that cannot be read; the message names it.
            OutputError: the cache cannot be written.
        """
        key = hashlib.sha256(json.dumps([rate, *(identity(u.path) for u in utterances)]).encode()).hexdigest()[:16]
        store = Path(cache) / f"waves-{key}.npy"
        index = Path(cache) / f"waves-{key}.offsets.npy"
        if not (store.exists() and index.exists()):
            make_folder(cache)
            reading = tqdm(utterances, desc="reading audio", unit="file", disable=None)
            _save(index, _pack(store, (_int16(utterance.path, rate) for utterance in reading)))
        return cls(np.load(store, mmap_mode="r"), np.load(index))


class Crops:
    """Random crops whose content depends on ``(seed, step)`` alone, so a resumed run sees what it would have seen.

    Args:
        odds: of every utterance, summing to one; without them every second of speech is equally likely.
        grid: crops begin on multiples of so many samples.
    """

    def __init__(
        self,
        store: WaveStore,
        samples: int,
        batch: int,
        seed: int,
        gain_db: tuple[float, float] = (0, 0),
        odds: np.ndarray | None = None,
        grid: int = 1,
    ):
        self.store, self.samples, self.batch, self.seed, self.gain_db = store, samples, batch, seed, gain_db
        self.grid = grid
        self.odds = balanced(store.lengths, ["all"] * len(store)) if odds is None else odds

    def __call__(self, step: int, process: int = 0, processes: int = 1) -> np.ndarray:
        """``wave[B, T]`` of this process's share of the batch; short utterances are zero-extended.

        The shares are blocks of rows in the order of the processes.
        """
        indices, starts, gains = self._draw(step)
        return self._cut(indices, starts, gains, self.samples, self.share(process, processes))

    def places(self, step: int, process: int = 0, processes: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Utterance and first sample of every crop of this process's share, ``[B]`` each."""
        indices, starts, _ = self._draw(step)
        mine = self.share(process, processes)
        return indices[mine], starts[mine]

    def references(
        self, step: int, samples: int, process: int = 0, processes: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """``wave[B, samples]`` from other parts of the same utterances as loud as the crops, see ``elsewhere``.

        Also how many samples ``[B]`` each has before its zeros.
        """
        indices, starts, gains = self._draw(step)
        lengths, draws = self.store.lengths[indices], np.random.default_rng((self.seed, step, REFERENCES))
        places = elsewhere(lengths, starts, self.samples, samples, draws.random(self.batch))
        mine = self.share(process, processes)
        held = np.minimum(lengths - places, samples)[mine]
        return self._cut(indices, places, gains, samples, mine), held

    def share(self, process: int, processes: int) -> slice:
        """The rows of the batch that are this process's."""
        size = self.batch // processes
        return slice(process * size, (process + 1) * size)

    def _draw(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        draws = np.random.default_rng((self.seed, step))
        indices = draws.choice(len(self.store), self.batch, p=self.odds)
        places, gains = draws.random(self.batch), draws.uniform(*self.gain_db, self.batch)
        spare = np.maximum(0, self.store.lengths[indices] - self.samples)
        return indices, (places * (spare + 1)).astype(np.int64) // self.grid * self.grid, gains

    def _cut(self, indices: np.ndarray, starts: np.ndarray, gains: np.ndarray, samples: int, mine: slice) -> np.ndarray:
        """Rows ``mine`` of the batch, zero-extended to ``samples``."""
        waves = np.zeros((len(indices[mine]), samples), np.float32)
        for row, index, start, gain in zip(waves, indices[mine], starts[mine], gains[mine], strict=True):
            wave = self.store[index][start : start + samples]
            row[: len(wave)] = wave * 10 ** (gain / 20)
        return waves


def elsewhere(lengths: np.ndarray, starts: np.ndarray, taken: int, wanted: int, draws: np.ndarray) -> np.ndarray:
    """Where parts of ``wanted`` samples begin that share nothing with the crops, ``[B]``.

    Where an utterance has no room for that, it is its end that is farther from the crop, so that they share least.

    Args:
        lengths: samples of the utterances, ``[B]``.
        starts: of the crops in them, each of ``taken`` samples, ``[B]``.
        draws: random numbers from 0 to 1, ``[B]``.
    """
    ahead, behind = starts, lengths - starts - taken
    before, after = (np.maximum(0, room - wanted + 1) for room in (ahead, behind))
    pick = (draws * (before + after)).astype(np.int64)
    apart = np.where(pick < before, pick, starts + taken + pick - before)
    edge = np.where(ahead > behind, 0, np.maximum(0, lengths - wanted))
    return np.where(before + after > 0, apart, edge)


def evenly(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers below ``count``, spread evenly over them from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def balanced(lengths: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Odds of utterances ``[n]`` that make every group equally likely, and every second within it.

    A group with an empty name is never drawn.
    """
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    used = names[numbers] != ""
    seconds = np.bincount(numbers, lengths.astype(np.float64))[numbers]
    return np.where(used, lengths / seconds, 0.0) / len(np.unique(numbers[used]))


def pooled(manifests: Iterable[str | Path], split: str) -> list[Utterance]:
    """The rows of one split of several manifests."""
    return [utterance for manifest in manifests for utterance in read_manifest(manifest, split)]


def identity(path: Path) -> list[str | int]:
    """By which caches know an audio file again, in whatever folder: name, size, time of its last change.

    Raises:
        AudioError: there is no such file.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise AudioError(f"{path}: named by a manifest but cannot be read ({error.strerror})") from error
    return [path.name, status.st_size, int(status.st_mtime)]


def _int16(path: Path, rate: int) -> np.ndarray:
    return np.clip(np.rint(read(path, rate).samples * 32768), -32768, 32767).astype(np.int16)


def _pack(path: Path, waves: Iterable[np.ndarray]) -> np.ndarray:
    """Write int16 ``waves`` one after the other as one array, of which memory never holds more than one; offsets."""
    offsets = [0]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        _int16_header(file, 0)
        start = file.tell()
        for wave in waves:
            file.write(wave.tobytes())
            offsets.append(offsets[-1] + len(wave))
        file.seek(0)
        _int16_header(file, offsets[-1])  # numpy leaves room for the number to grow
        assert file.tell() == start
    return np.array(offsets)


def _int16_header(file: BinaryIO, samples: int) -> None:
    header = {"descr": np.dtype(np.int16).str, "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(file, header)


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
