"""Features of a whole corpus, made in parts, so that an interruption costs one part and not all."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.errors import CheckpointError, ConfigError, OutputError
from speechtok.files import StrPath, make_folder
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.store import FeatureStore, write_features
from speechtok.guidance.targets import Teacher, extract, weights_digest
from speechtok.shards.claims import Claims
from speechtok.shards.runner import WAIT, work_through

PART = 200
"""Utterances of a part."""
PARTS, SUFFIX = ".parts", ".safetensors"


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
    speech, those that are whole are used; several processes on one ``path`` share the work.

    Args:
        name: of the teacher, see ``naming.describe``.
        samples: lengths of the waves.
        done: told how many utterances have been finished, again and again.

    Raises:
        ConfigError: features that are not finite in float16.
        OutputError: the store cannot be written.
    """
    folder = make_folder(f"{Path(path)}{PARTS}")
    rows = {f"{first:08d}": range(first, min(first + PART, len(samples))) for first in range(0, len(samples), PART)}
    parts = [folder / f"{name}{SUFFIX}" for name in rows]
    about = (teacher.dimension, teacher.law, name, weights_digest(teacher))
    if isinstance(teacher, nn.Module):
        teacher.to(device)
    kept = 0
    for row, part in zip(rows.values(), parts, strict=True):
        if not part.exists():
            continue
        if _whole(part, [int(samples[i]) for i in row], about):
            kept += len(row)
            done(len(row))
        else:
            part.unlink(missing_ok=True)

    def make(part: str, temporary: Path) -> None:
        heard = (torch.from_numpy(waves[i]).to(device) for i in rows[part])
        lengths = [int(samples[i]) for i in rows[part]]
        try:
            write_features(temporary, _counted(extract(teacher, heard), done), lengths, *about)
        except ConfigError as error:  # the name of the moment says nothing
            raise ConfigError(str(error).replace(str(temporary), str(folder / f"{part}{SUFFIX}"))) from error

    claims = Claims(folder / "claims")
    joined = False
    while not joined:
        try:
            for _ in work_through(list(rows), folder, SUFFIX, make, claims):
                pass
            joined = _join(folder, parts, claims, lambda: write_features(path, _joined(parts), samples, *about))
        except (OutputError, CheckpointError):
            # Another process may have joined the parts and removed them, just when this one looked for more work.
            if not _whole(Path(path), [int(length) for length in samples], about):
                raise
            joined = True
    shutil.rmtree(folder, ignore_errors=True)
    return kept


def _join(folder: Path, parts: Sequence[Path], claims: Claims, write: Callable[[], None]) -> bool:
    """Write the store and remove the parts, once; of several processes that share the work, the others wait for it.

    Returns:
        False where a part is missing, because another process found it to be none of its own.
    """
    while folder.exists():
        with claims.hold("joined") as mine:
            present = [part.exists() for part in parts] if mine else []
            if mine and all(present):
                write()
        if mine:
            if any(present) and not all(present):
                return False
            shutil.rmtree(folder, ignore_errors=True)
            return True
        time.sleep(WAIT)
    return True


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
