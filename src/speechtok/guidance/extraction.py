"""Features of a whole corpus, made in parts, so that an interruption costs one part and not all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.errors import CheckpointError, ConfigError
from speechtok.files import StrPath, make_folder
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.store import FeatureStore, write_features
from speechtok.guidance.targets import Teacher, extract, weights_digest

PART = 200
"""Utterances of a part."""


def extract_store(
    path: StrPath,
    teacher: Teacher,
    name: str,
    waves: Sequence[np.ndarray],
    samples: Sequence[int],
    device: str = "cpu",
    done: Callable[[int], object] = lambda utterances: None,
) -> int:
    """Write the feature store ``path`` of ``waves[i][T_i]``, one utterance at a time; returns how many were there.

    Parts are kept in the folder ``path`` + ``.parts`` until all are joined. Started again with the same teacher and
    speech, those that are whole are used.

    Args:
        name: of the teacher, see ``naming.describe``.
        samples: lengths of the waves.
        done: told how many utterances have been finished, again and again.

    Raises:
        ConfigError: features that are not finite in float16.
        OutputError: the store cannot be written.
    """
    folder = Path(f"{Path(path)}.parts")
    make_folder(folder)
    rows = [range(first, min(first + PART, len(samples))) for first in range(0, len(samples), PART)]
    parts = [folder / f"{row.start:08d}.safetensors" for row in rows]
    about = (teacher.dimension, teacher.law, name, weights_digest(teacher))
    if isinstance(teacher, nn.Module):
        teacher.to(device)
    kept = 0
    for row, part in zip(rows, parts, strict=True):
        lengths = [int(samples[i]) for i in row]
        if _whole(part, lengths, about):
            kept += len(row)
            done(len(row))
        else:
            heard = (torch.from_numpy(waves[i]).to(device) for i in row)
            write_features(part, _counted(extract(teacher, heard), done), lengths, *about)
    write_features(path, _joined(parts), samples, *about)
    shutil.rmtree(folder)
    return kept


def _whole(part: Path, lengths: Sequence[int], about: tuple[int, FrameLaw, str, str]) -> bool:
    """Whether an earlier call left this part, of the same speech and teacher; old parts do not know its weights."""
    *kind, weights = about
    try:
        store = FeatureStore(part)
        store.check(lengths, kind[1].rate)
    except (CheckpointError, ConfigError):
        return False
    return [store.dimension, store.law, store.teacher] == kind and store.weights in ("", weights)


def _counted(features: Iterator[np.ndarray], done: Callable[[int], object]) -> Iterator[np.ndarray]:
    for found in features:
        yield found
        done(1)


def _joined(parts: Sequence[Path]) -> Iterator[np.ndarray | Tensor]:
    for part in parts:
        store = FeatureStore(part)
        yield from (store[i] for i in range(len(store)))
