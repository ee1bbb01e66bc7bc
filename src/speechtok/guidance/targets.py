"""Semantic targets on the codec's frames, from a teacher that listens now or beforehand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.guidance.frames import CodecGrid, FrameLaw, align


class Teacher(Protocol):
    """Anything that gives frames for waveforms: ``SemanticTeacher``, or a model of one's own."""

    law: FrameLaw
    dimension: int

    def __call__(self, wave: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``wave[B, T] -> features[B, law.frames(T), D], mask[B, law.frames(T)]``."""


def crop_targets(
    teacher: Teacher, wave: Tensor, grid: CodecGrid, frames: int, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The teacher hears exactly the crops ``wave[B, T]`` that the codec hears: ``[B, N, D]`` and ``mask[B, N]``.

    Where the teacher has fewer frames than the codec, the last ones are masked; that is the official truncation.

    Args:
        frames: codec frames of a crop, N.
        lengths: ``[B]`` samples that are speech, where a crop ends in zeros.
    """
    _same_rate(teacher, grid)
    features, heard = teacher(wave, lengths)
    aligned, inside = align(features, grid, teacher.law, frames)
    marks, _ = align(heard[..., None].float(), grid, teacher.law, frames)
    return aligned, inside & marks[..., 0].bool()


def extract(teacher: Teacher, waves: Iterable[Tensor | np.ndarray]) -> Iterator[np.ndarray]:
    """Features ``[T', D]`` of one whole utterance ``[T]`` after the other, for ``write_features``."""
    for wave in waves:
        features, _ = teacher(torch.as_tensor(wave, dtype=torch.float32)[None])
        yield features[0].cpu().numpy()


def weights_digest(teacher: Teacher) -> str:
    """By which a teacher's weights are known again, wherever they lie; empty where it is no module."""
    if not isinstance(teacher, nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(teacher.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def assign_units(features: Tensor, centres: Tensor) -> Tensor:
    """Number of the nearest of ``centres[K, D]`` for ``features[B, N, D]``, whole numbers ``[B, N]``."""
    flat = features.flatten(0, -2).float()
    scores = torch.addmm(-0.5 * centres.square().sum(1), flat, centres.t())
    return scores.argmax(1).reshape(features.shape[:-1])


def _same_rate(teacher: Teacher, grid: CodecGrid) -> None:
    if teacher.law.rate != grid.rate:
        raise ConfigError(
            f"the teacher hears {teacher.law.rate} Hz and the codec {grid.rate} Hz;"
            " extract its features beforehand from resampled speech"
        )
