"""Pseudo-labels for pre-training: every utterance's frames as k-means units, made once and kept in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from speechtok.errors import CheckpointError, ConfigError
from speechtok.files import atomic_path
from speechtok.guidance.clusters import fit_centres
from speechtok.guidance.frames import CodecGrid, FrameLaw, matching_frames
from speechtok.guidance.targets import Teacher, assign_units, weights_digest
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.nn.mfcc import HOP, MFCC, RATE
from speechtok.train.data import WaveStore
from speechtok.train.teaching import UNKNOWN

BATCH = 10_000
"""Vectors per step of k-means (HuBERT, section IV-B)."""


@dataclass
class TargetsConfig:
    """What is predicted."""

    kind: Literal["mfcc", "features"] = "mfcc"
    """HuBERT's first iteration, or the features of an earlier model."""
    model: str = ""
    """Folder or Hub id of that model."""
    layer: int | Literal["average"] = 6
    """Its layer, or ``average``."""
    clusters: int = 100
    vectors: int = 200_000
    """Frames that k-means is fitted on, of utterances drawn at random."""
    passes: int = 5

    def __post_init__(self) -> None:
        if not 2 <= self.clusters < 2**15:
            raise ConfigError(f"targets.clusters={self.clusters}; give 2 to 32767")
        if self.kind == "features" and not self.model:
            raise ConfigError("targets.kind=features needs targets.model, the folder of an earlier run's model")

    def teacher(self) -> Teacher:
        """What gives the vectors."""
        return load_semantic_teacher(self.model, self.layer) if self.kind == "features" else MfccTeacher()


class MfccTeacher:
    """39 MFCC every 20 ms, the mean of two neighbouring frames, centred on sample ``320 n + 160``; see ``Teacher``."""

    law = FrameLaw(RATE, 2 * HOP, 2 * HOP)
    dimension = MFCC.DIMENSION

    def __init__(self) -> None:
        self.mfcc = MFCC()

    def __call__(self, wave: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Of utterances without padding only."""
        frames = self.law.frames(wave.shape[1])
        vectors = self.mfcc(wave)[:, : 2 * frames].unflatten(1, (frames, 2)).mean(2)
        return vectors, torch.ones(vectors.shape[:2], dtype=torch.bool)


class Labels:
    """Units of whole utterances, int16, one after the other."""

    def __init__(self, labels: np.ndarray, offsets: np.ndarray, law: FrameLaw):
        self.labels, self.offsets, self.law = labels, offsets, law

    @classmethod
    def of(cls, teacher: Teacher, centres: Tensor, store: WaveStore) -> Labels:
        """Nearest of ``centres[K, D]`` for every frame of every utterance."""
        waves = (store[i] for i in tqdm(range(len(store)), desc="labels", unit="utterance", disable=None))
        parts = [assign_units(vectors_of(teacher, wave)[None], centres)[0].numpy().astype(np.int16) for wave in waves]
        return cls(np.concatenate(parts), np.cumsum([0, *map(len, parts)]), teacher.law)

    def crops(self, picks: np.ndarray, starts: np.ndarray, law: FrameLaw, frames: int) -> Tensor:
        """Labels ``[B, frames]`` of crops heard by a network of that ``law``; ``UNKNOWN`` beyond the utterance."""
        found = np.full((len(picks), frames), UNKNOWN, np.int64)
        grid = CodecGrid(law.rate, law.hop)
        for row, pick, start in zip(found, picks, starts, strict=True):
            held = self.labels[self.offsets[pick] : self.offsets[pick + 1]]
            places = matching_frames(grid, self.law, frames, int(start))
            inside = places < len(held)
            row[inside] = held[places[inside]]
        return torch.from_numpy(found)


def vectors_of(teacher: Teacher, wave: np.ndarray) -> Tensor:
    """``[N, D]`` of one whole utterance ``[T]``; none where it is shorter than a frame."""
    if not teacher.law.frames(len(wave)):
        return torch.zeros(0, teacher.dimension)
    with torch.inference_mode():
        return teacher(torch.from_numpy(wave)[None])[0][0]


def fit(config: TargetsConfig, teacher: Teacher, store: WaveStore, seed: int) -> Tensor:
    """Centres ``[K, D]`` of utterances drawn at random."""
    draws, parts, count = np.random.default_rng(seed), [], 0
    for index in draws.permutation(len(store)):
        parts.append(vectors_of(teacher, store[index]))
        count += len(parts[-1])
        if count >= config.vectors:
            break
    together = torch.cat(parts)

    def batches() -> Iterator[Tensor]:
        for _ in range(config.passes):
            order = torch.from_numpy(draws.permutation(len(together)))
            yield from (together[part] for part in order.split(BATCH))

    return fit_centres(batches(), config.clusters, seed)


def origin_of(config: TargetsConfig, teacher: Teacher, seed: int) -> str:
    """All that decides targets of the same speech, as JSON; of a teacher that learned, its weights too."""
    return json.dumps({"targets": asdict(config), "seed": seed, "teacher": weights_digest(teacher)}, sort_keys=True)


def make(config: TargetsConfig, teacher: Teacher, store: WaveStore, path: Path, seed: int, origin: str) -> None:
    """Fit the centres and label every utterance, unless ``path`` holds targets already."""
    if path.exists():
        return
    centres = fit(config, teacher, store, seed)
    labels = Labels.of(teacher, centres, store)
    tensors = {"centres": centres, "labels": torch.from_numpy(labels.labels), "offsets": torch.tensor(labels.offsets)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"origin": origin})


def read(path: Path, store: WaveStore, law: FrameLaw, origin: str) -> tuple[Labels, Tensor]:
    """Labels and centres that ``make`` left.

    Raises:
        CheckpointError: damaged, or made of other speech, by other settings or by another teacher.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
        labels = Labels(tensors["labels"].numpy(), tensors["offsets"].numpy(), law)
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); remove it to have it made again") from error
    if np.diff(labels.offsets).tolist() != [law.frames(int(n)) for n in store.lengths]:
        raise CheckpointError(f"{path}: labels other speech than the recipe names; use an empty folder")
    if metadata.get("origin", origin) != origin:  # files of earlier releases do not say
        raise CheckpointError(f"{path}: made by other targets, seed or teacher than the recipe's; use an empty folder")
    return labels, tensors["centres"]
