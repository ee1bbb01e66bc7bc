"""Teacher features of a whole corpus in one safetensors file, written as a stream and read by parts.

``features`` is float16 ``[total, D]``, utterance after utterance; ``offsets`` int64 ``[U + 1]`` says where each
begins; ``samples`` int64 ``[U]`` holds the lengths of the waveforms, by which a store is matched to its corpus.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from speechtok.errors import CheckpointError, ConfigError
from speechtok.files import StrPath, atomic_path
from speechtok.guidance.frames import CodecGrid, FrameLaw, align

FORMAT, VERSION = "speechtok.features", "1"


class FeatureStore:
    """Features of utterance i as ``store[i]``, and of crops by ``batch``.

    ``teacher`` is the name of what made them, ``weights`` the digest of its weights, empty where nothing is known.

    Raises:
        CheckpointError: the file is missing, damaged, or no feature store.
    """

    def __init__(self, path: StrPath):
        self.path = Path(path)
        try:
            self._file = safe_open(self.path, framework="pt")
            header = self._file.metadata() or {}
            if header.get("format") != FORMAT or header.get("version") != VERSION:
                raise CheckpointError(f"{path}: is no feature store of this release; extract the features again")
            self.law = FrameLaw(*json.loads(header["law"]))
            self.teacher, self.weights = header["teacher"], header.get("weights", "")
            self.offsets: Tensor = self._file.get_tensor("offsets")
            self.samples: Tensor = self._file.get_tensor("samples")
            self._features = self._file.get_slice("features")
            self.dimension: int = self._features.get_shape()[1]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: missing or damaged ({error}); extract the features again") from error

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        """All features of one utterance, float16 ``[T', D]``."""
        return self._features[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def check(self, samples: Sequence[int], rate: int) -> None:
        """Make sure that the store belongs to utterances of these lengths at this rate.

        Raises:
            ConfigError: it was made from other speech.
        """
        theirs = self.samples.tolist()
        if rate != self.law.rate or theirs != [int(n) for n in samples]:
            raise ConfigError(
                f"{self.path}: holds {len(theirs)} utterances at {self.law.rate} Hz of other lengths than the"
                f" {len(samples)} at {rate} Hz given; extract the features of these"
            )

    def batch(self, picks: Sequence[int], starts: Sequence[int], frames: int, grid: CodecGrid) -> tuple[Tensor, Tensor]:
        """Features of crops on the codec's frames.

        Args:
            picks: utterances, ``[B]``.
            starts: first sample of each crop at the codec's rate, ``[B]``.
            frames: codec frames of a crop, N.

        Returns:
            float32 ``[B, N, D]`` and ``mask[B, N]``, False where an utterance has no features.
        """
        aligned = [align(self[pick], grid, self.law, frames, start) for pick, start in zip(picks, starts, strict=True)]
        return torch.stack([part for part, _ in aligned]).float(), torch.stack([mask for _, mask in aligned])


def write_features(
    path: StrPath,
    features: Iterable[np.ndarray],
    samples: Sequence[int],
    dimension: int,
    law: FrameLaw,
    teacher: str,
    weights: str = "",
) -> None:
    """Write a store without holding more than one utterance.

    Args:
        features: ``[law.frames(samples[i]), D]`` for every utterance, in order; stored as float16.
        samples: lengths of the waveforms at ``law.rate``.
        teacher: what made them, for people.
        weights: its ``targets.weights_digest``.

    Raises:
        ConfigError: features that do not obey the law, are not finite in float16, or are too few or too many.
        OutputError: the file cannot be written.
    """
    offsets = np.cumsum([0, *(law.frames(int(n)) for n in samples)]).astype("<i8")
    lengths = np.asarray(samples, "<i8")
    header = _header(int(offsets[-1]), dimension, len(lengths), law, {"teacher": teacher, "weights": weights})
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header + offsets.tobytes() + lengths.tobytes())
        count = 0
        for count, part in enumerate(features, 1):
            if count > len(lengths):
                raise ConfigError(f"{path}: more features than the {len(lengths)} utterances; give one array for each")
            wanted = (int(offsets[count] - offsets[count - 1]), dimension)
            with np.errstate(over="ignore"):
                half = np.ascontiguousarray(part, "<f2")
            if half.shape != wanted or not np.isfinite(half).all():
                raise ConfigError(f"{path}: utterance {count - 1} gave {half.shape}, wanted finite {wanted} in float16")
            file.write(half.tobytes())
        if count < len(lengths):
            raise ConfigError(f"{path}: features of {count} utterances only, {len(lengths)} were promised")


def _header(total: int, dimension: int, utterances: int, law: FrameLaw, origin: dict[str, str]) -> bytes:
    """The head of a safetensors file: its length, then names, types, shapes and places as JSON."""
    shapes = {
        "offsets": ("I64", [utterances + 1], 8),
        "samples": ("I64", [utterances], 8),
        "features": ("F16", [total, dimension], 2),
    }
    about = {
        "format": FORMAT,
        "version": VERSION,
        **origin,
        "law": json.dumps([law.rate, law.hop, law.window]),
    }
    entries: dict[str, Mapping] = {"__metadata__": about}
    at = 0
    for name, (kind, shape, width) in shapes.items():
        end = at + width * int(np.prod(shape))
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
