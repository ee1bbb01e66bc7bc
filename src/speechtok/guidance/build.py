"""Guides as a recipe writes them: which teachers, which losses, what weights; checked, then built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.guidance.acoustic import AcousticConfig
from speechtok.guidance.clusters import load_centres, load_units_config
from speechtok.guidance.frames import CodecGrid
from speechtok.guidance.guides import (
    AcousticGuide,
    HeardCrops,
    HeardVoices,
    Places,
    Remainders,
    ReversalGuide,
    SemanticGuide,
    Source,
    StoredFeatures,
)
from speechtok.guidance.losses import SemanticConfig
from speechtok.guidance.naming import describe
from speechtok.guidance.reversal import Question, ReversalConfig, WhatIsHeard, WhoSpeaks
from speechtok.guidance.store import FeatureStore
from speechtok.guidance.targets import weights_digest
from speechtok.guidance.teachers import load_semantic_teacher, load_speaker_teacher
from speechtok.nn.codec import CodecConfig

Lengths = Callable[[int], Sequence[int]]
"""``rate -> samples`` of every training utterance at that rate, in the order of ``Places``."""
Names = Callable[[], Sequence[str]]
"""The speaker of every training utterance, in the same order."""


@dataclass
class SemanticSection(SemanticConfig):
    """Guidance of level one, as a recipe writes it."""

    teacher: str | None = "facebook/hubert-base-ls960"
    """Folder or Hub id. With ``features`` it is only compared with the one that made them; null skips that."""
    layer: int | Literal["average", "logits"] = "average"
    """Number of a layer (0: the input of the first), the average of all, or the answers of a teacher with a head."""
    features: str | None = None
    """Feature store of the training speech (``speechtok features``); null: the teacher hears every crop."""
    centres: str | None = None
    """Folder of ``speechtok train units``, for the loss ``units`` and no other."""
    weight: float = 1.0
    """Weight of ``semantic/<loss>`` in the generator's sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is None and self.features is None:
            raise ConfigError("guides.semantic names neither a teacher nor features; name one, or set it to null")
        if (self.loss == "units") != (self.centres is not None):
            raise ConfigError(
                "guides.semantic.centres belongs to loss=units and to no other; name the folder of 'speechtok train"
                " units' there, or take it out"
            )


@dataclass
class AcousticSection(AcousticConfig):
    """Guidance of the residual levels, as a recipe writes it."""

    teacher: str = "speechbrain/spkrec-ecapa-voxceleb"
    """File, folder or Hub id of an ECAPA-TDNN."""
    kl: float = 0.5
    """Weight of ``acoustic/kl`` in the generator's sum."""
    cosine: float = 0.0
    """Weight of ``acoustic/cosine`` (1 - cosine)."""


@dataclass
class ReversalSection(ReversalConfig):
    """Removal of the speaker, as a recipe writes it."""

    teacher: str | None = None
    """File, folder or Hub id of an ECAPA-TDNN whose embedding the critic looks for; null: the speakers that the
    training manifests name."""
    weight: float = 1.0
    """Weight of ``reversal/cross_entropy``, or of ``reversal/cosine`` with a teacher."""


@dataclass
class GuidesConfig:
    """The teachers of a codec; null switches one off."""

    semantic: SemanticSection | None = None
    acoustic: AcousticSection | None = None
    reversal: ReversalSection | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the losses that these guides return, by name."""
        weights = {}
        if self.semantic:
            weights[f"semantic/{self.semantic.loss}"] = self.semantic.weight
        if self.acoustic:
            weights |= {"acoustic/kl": self.acoustic.kl, "acoustic/cosine": self.acoustic.cosine}
        if self.reversal:
            asked = "cross_entropy" if self.reversal.teacher is None else "cosine"
            weights[f"reversal/{asked}"] = self.reversal.weight
        return weights


def build_guides(
    config: GuidesConfig, codec: CodecConfig, places: Places, lengths: Lengths, names: Names
) -> list[nn.Module]:
    """The guides that are switched on, in the order of the config.

    Args:
        codec: what they teach.
        places: where the crops of a step are cut.
        lengths: by which stored features are held to the training speech, and the ends of utterances are known.
        names: whom the critic of the reversal shall tell apart.

    Raises:
        CheckpointError: a teacher, feature store or folder of centres that cannot be loaded.
        ConfigError: parts that do not fit each other, such as the teacher's width and ``codec.semantic_dimension``.
    """
    grid, lengths = CodecGrid(codec.sample_rate, codec.hop), cache(lengths)

    def remainders(step: int) -> np.ndarray:
        picks, starts = places(step)
        return np.asarray(lengths(grid.rate))[picks] - starts

    guides: list[nn.Module] = []
    if config.semantic:
        guides.append(_semantic(config.semantic, codec, grid, places, lengths, remainders))
    if config.acoustic:
        teacher = load_speaker_teacher(config.acoustic.teacher)
        guides.append(AcousticGuide(config.acoustic, teacher, codec.dimension, grid, remainders))
    if config.reversal:
        question = _question(config.reversal, grid, places, names)
        content = (config.reversal.content == "first" and codec.own_space) or codec.dimension
        guides.append(ReversalGuide(config.reversal, question, content, grid, remainders))
    return guides


def _question(config: ReversalSection, grid: CodecGrid, places: Places, names: Names) -> Question:
    """What the critic of the reversal is asked."""
    if config.teacher is None:
        return WhoSpeaks(names(), lambda step: places(step)[0])
    teacher = load_speaker_teacher(config.teacher)
    voices = HeardVoices(teacher, grid)
    return WhatIsHeard(lambda wave, lengths: voices(wave, lengths).embedding, teacher.dimension)


def _semantic(
    config: SemanticSection,
    codec: CodecConfig,
    grid: CodecGrid,
    places: Places,
    lengths: Lengths,
    remainders: Remainders,
) -> SemanticGuide:
    source, width, teacher, weights = _source(config, grid, places, lengths, remainders)
    centres = _centres(config.centres, width, teacher, weights) if config.centres else None
    wanted, what = (
        (width, f"features of {teacher}") if centres is None else (len(centres), f"units of {config.centres}")
    )
    if codec.semantic_dimension != wanted:
        raise ConfigError(
            f"codec.semantic_dimension is {codec.semantic_dimension}, and there are {wanted} {what};"
            f" set codec.semantic_dimension={wanted}"
        )
    return SemanticGuide(config, source, centres)


def _source(
    config: SemanticSection, grid: CodecGrid, places: Places, lengths: Lengths, remainders: Remainders
) -> tuple[Source, int, str, str]:
    """Where targets come from, their width, the teacher's description and the digest of its weights."""
    named = None if config.teacher is None else describe(config.teacher, config.layer)
    if config.features is None:
        teacher = load_semantic_teacher(config.teacher, config.layer)
        if teacher.law.rate != grid.rate:
            raise ConfigError(
                f"{config.teacher}: hears {teacher.law.rate} Hz and the codec {grid.rate} Hz;"
                " extract its features with 'speechtok features' and name them in guides.semantic.features"
            )
        return HeardCrops(teacher, grid, remainders), teacher.dimension, named, weights_digest(teacher)
    store = FeatureStore(config.features)
    if named not in (None, store.teacher):
        raise ConfigError(
            f"{config.features}: holds features of {store.teacher!r}, the recipe asks for {named!r};"
            " correct guides.semantic.teacher and layer, or set the teacher to null"
        )
    # what a Hub id names does not change
    here = weights_digest(load_semantic_teacher(config.teacher, config.layer)) if _is_folder(config.teacher) else ""
    if here and store.weights not in ("", here):
        raise ConfigError(
            f"{config.features}: {config.teacher} has been trained again since; extract the features again"
        )
    store.check(lengths(store.law.rate), store.law.rate)
    return StoredFeatures(store, places, grid), store.dimension, store.teacher, store.weights


def _is_folder(teacher: str | None) -> bool:
    return teacher is not None and Path(teacher).is_dir()


def _centres(folder: str, width: int, teacher: str, weights: str) -> Tensor:
    """Centres ``[K, D]`` that belong to these features."""
    centres, about = load_centres(folder), load_units_config(folder)
    theirs = about.described
    if centres.shape[1] != width or theirs != teacher:
        raise ConfigError(
            f"{folder}: are centres of {theirs!r} ({centres.shape[1]} wide), the guide hears {teacher!r} ({width});"
            " name those that 'speechtok train units' makes from the same features"
        )
    if weights and about.weights not in ("", weights):
        raise ConfigError(f"{folder}: {theirs} has been trained again since; make the centres again")
    return centres
