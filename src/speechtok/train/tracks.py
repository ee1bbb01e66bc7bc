"""Rows of numbers in step with a corpus: codes or prosody of every frame of every utterance, made once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from tqdm import tqdm

from speechtok.files import make_folder, write_bytes_atomic
from speechtok.train.data import WaveStore


class Track:
    """``rows[total, D]`` of all utterances of a corpus, and where each begins."""

    def __init__(self, rows: np.ndarray, offsets: np.ndarray, hop: int):
        self.rows, self.offsets, self.hop = rows, offsets, hop

    def __getitem__(self, index: int) -> np.ndarray:
        """Of one utterance, ``[N, D]``."""
        return self.rows[self.offsets[index] : self.offsets[index + 1]]

    def batch(self, picks: Sequence[int], starts: Sequence[int], frames: int) -> torch.Tensor:
        """Of crops that begin at samples ``starts[B]``, whole frames, of utterances ``picks[B]``: ``[B, frames, D]``.

        What lies beyond an utterance is its last row.
        """
        found = []
        for pick, start in zip(picks, starts, strict=True):
            own = self[pick]
            found.append(own[np.minimum(start // self.hop + np.arange(frames), len(own) - 1)])
        return torch.from_numpy(np.stack(found))

    @classmethod
    def build(
        cls, speech: WaveStore, what: Any, hop: int, rows_of: Callable[[np.ndarray], np.ndarray], cache: str | Path
    ) -> Track:
        """``rows_of(wave[T]) -> [ceil(T / hop), D]`` of every utterance, or the copy that an earlier call left.

        Args:
            what: all that decides the rows beside the speech, as JSON values.

        Raises:
            OutputError: the cache cannot be written.
        """
        key = hashlib.sha256(json.dumps([speech.digest, what, hop]).encode()).hexdigest()[:16]
        path = Path(cache) / f"track-{key}.safetensors"
        try:
            kept = load_file(path)
            return cls(kept["rows"].numpy(), kept["offsets"].numpy(), hop)
        except (OSError, SafetensorError, KeyError):  # none yet, or one that a kill cut short
            pass
        each = [rows_of(speech[index]) for index in tqdm(range(len(speech)), desc="tracks", unit="file", disable=None)]
        # rows that were transposed would lie the other way in memory, which the file does not hold
        rows, offsets = np.ascontiguousarray(np.concatenate(each)), np.cumsum([0, *map(len, each)])
        make_folder(cache)
        write_bytes_atomic(path, to_bytes({"rows": torch.from_numpy(rows), "offsets": torch.from_numpy(offsets)}))
        return cls(rows, offsets, hop)
