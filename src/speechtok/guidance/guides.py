"""Guides for the codec trainer: called with every batch, they answer with losses by name.

A guide's own layers are trained and saved with the codec. Its teacher is neither, so it is kept where
``parameters()`` and ``state_dict()`` do not see it, and follows the batch to its device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.guidance.acoustic import AcousticConfig, AlignLayer
from speechtok.guidance.frames import CodecGrid
from speechtok.guidance.losses import SemanticConfig, semantic_losses
from speechtok.guidance.reversal import Critic, Question, ReversalConfig
from speechtok.guidance.speaker import SpeakerTeacher
from speechtok.guidance.store import FeatureStore
from speechtok.guidance.targets import Teacher, assign_units, crop_targets
from speechtok.nn.codec import Codec, real_frames
from speechtok.nn.ecapa import SpeakerFeatures
from speechtok.nn.quantizers import Quantized

Source = Callable[[Tensor, int, int], tuple[Tensor, Tensor]]
"""``(wave[B, T], step, N) -> features[B, N, D], mask[B, N]`` on the frames of the codec."""
Places = Callable[[int], tuple[np.ndarray, np.ndarray]]
"""``step -> utterances[B], first samples[B]`` of the crops in this process's share of the batch."""
Remainders = Callable[[int], np.ndarray]
"""``step -> samples[B]`` from the start of each such crop to the end of its utterance; a crop is silent beyond."""


class HeardCrops:
    """Features of a teacher that listens to the very crops of the batch.

    Args:
        remainders: where they are not given, crops are heard whole.
    """

    def __init__(self, teacher: Teacher, grid: CodecGrid, remainders: Remainders | None = None):
        self.teacher, self.grid, self.remainders = teacher, grid, remainders

    def __call__(self, wave: Tensor, step: int, frames: int) -> tuple[Tensor, Tensor]:
        """See ``Source``."""
        lengths = _lengths(self.remainders, wave, step)
        return crop_targets(_beside(self.teacher, wave), wave.float(), self.grid, frames, lengths)


class StoredFeatures:
    """Features computed beforehand from whole utterances, cut where the crops were cut."""

    def __init__(self, store: FeatureStore, places: Places, grid: CodecGrid):
        self.store, self.places, self.grid = store, places, grid

    def __call__(self, wave: Tensor, step: int, frames: int) -> tuple[Tensor, Tensor]:
        """See ``Source``; of the waves only the device and the number matter."""
        picks, starts = self.places(step)
        if len(picks) != len(wave):
            raise ConfigError(f"{len(picks)} places were given for {len(wave)} crops; give those of this process")
        features, mask = self.store.batch(picks.tolist(), starts.tolist(), frames, self.grid)
        return features.to(wave.device), mask.to(wave.device)


class SemanticGuide(nn.Module):
    """Teaches level one, through the codec's own projection ``codec.transform``.

    Args:
        source: where targets come from, ``HeardCrops`` or ``StoredFeatures``.
        centres: ``[K, D]`` of the k-means units, for the loss ``units``; the codec's semantic dimension must be K then.
    """

    def __init__(self, config: SemanticConfig, source: Source, centres: Tensor | None = None):
        super().__init__()
        if (config.loss == "units") != (centres is not None):
            raise ConfigError(
                "semantic loss units needs the centres of the units, and no other loss has a use for them"
            )
        self.config, self.source = config, source
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, codec: Codec, wave: Tensor, quantized: Quantized, step: int) -> dict[str, Tensor]:
        """``semantic/<loss>`` and what to watch, see ``semantic_losses``."""
        student = codec.transform(quantized.first)
        target, mask = self.source(wave, step, student.shape[1])
        if self.centres is not None:
            target = assign_units(target, self.centres)
        return semantic_losses(self.config, student, target, mask)


class AcousticGuide(nn.Module):
    """Teaches the residual levels what a speaker network hears in the same crop; the align layer learns with them.

    Args:
        dimension: of the codec's latents.
        remainders: where they are not given, crops are heard whole.
    """

    def __init__(
        self,
        config: AcousticConfig,
        teacher: SpeakerTeacher,
        dimension: int,
        grid: CodecGrid,
        remainders: Remainders | None = None,
    ):
        super().__init__()
        self.grid, self.remainders = grid, remainders
        self.teacher = HeardVoices(teacher, grid)
        widths = (teacher.dimension, teacher.frame_dimension)
        self.layer = AlignLayer(config, dimension, *widths, grid, teacher.rate / teacher.hop)

    def forward(self, codec: Codec, wave: Tensor, quantized: Quantized, step: int) -> dict[str, Tensor]:
        """``acoustic/kl`` and ``acoustic/cosine``, see ``AlignLayer``; nothing before there are codes."""
        if quantized.codes is None:
            return {}
        lengths = _lengths(self.remainders, wave, step)
        mask = _mask(lengths, quantized.latent, self.grid)
        return self.layer(quantized.latent, codec.quantizer, quantized.codes, self.teacher(wave, lengths), mask)


class ReversalGuide(nn.Module):
    """Removes the speaker from what is quantized; the critic that looks for it learns with the codec.

    Args:
        question: what the critic is asked.
        dimension: of the content.
        remainders: where they are not given, crops count whole.
    """

    def __init__(
        self,
        config: ReversalConfig,
        question: Question,
        dimension: int,
        grid: CodecGrid,
        remainders: Remainders | None = None,
    ):
        super().__init__()
        self.config, self.question, self.grid, self.remainders = config, question, grid, remainders
        self.critic = Critic(dimension, config.width, question.outputs)

    def forward(self, codec: Codec, wave: Tensor, quantized: Quantized, step: int) -> dict[str, Tensor]:
        """The losses of its question."""
        lengths = _lengths(self.remainders, wave, step)
        content = quantized.first if self.config.content == "first" else quantized.latent
        answers = self.critic(content, self.config.strength_at(step), _mask(lengths, content, self.grid))
        return self.question(answers, wave, lengths, step)


class HeardVoices:
    """A speaker teacher that listens to the very crops of the batch; no part of the guide that has it.

    Raises:
        ConfigError: it hears another rate than the codec.
    """

    def __init__(self, teacher: SpeakerTeacher, grid: CodecGrid):
        if teacher.rate != grid.rate:
            raise ConfigError(f"the speaker teacher hears {teacher.rate} Hz and the codec {grid.rate} Hz; use one rate")
        self.teacher = teacher

    def __call__(self, wave: Tensor, lengths: Tensor | None) -> SpeakerFeatures:
        """Of ``wave[B, T]`` with ``lengths[B]`` samples."""
        return _beside(self.teacher, wave)(wave.float(), lengths)


def _lengths(remainders: Remainders | None, wave: Tensor, step: int) -> Tensor | None:
    """Samples of speech in each crop, ``[B]``; None where all are whole."""
    found = None if remainders is None else torch.from_numpy(remainders(step)).to(wave.device)
    return None if found is None or bool((found >= wave.shape[1]).all()) else found.clamp_max(wave.shape[1])


def _mask(lengths: Tensor | None, frames: Tensor, grid: CodecGrid) -> Tensor | None:
    """True on the real ones of ``frames[B, N, D]``, ``[B, N]``; None where all are."""
    return None if lengths is None else real_frames(lengths, frames.shape[1], grid.hop)


def _beside(teacher: Any, wave: Tensor) -> Any:
    """The teacher, on the device of the wave."""
    return teacher.to(wave.device) if isinstance(teacher, nn.Module) else teacher
