"""Scheme E in two stages: semantic units first, then the levels of a codec, as in AudioLM (Borsos and others, 2022).

AudioLM keeps two streams of different rates (w2v-BERT units and SoundStream codes, section III). Here both lie on the
codec's frames, so that one ``Tokens`` holds them: level 0 (and further ones, where units have several) is semantic,
the codec's levels follow as acoustic ones.
"""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.audio import Audio
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError
from speechtok.guidance.frames import CodecGrid, FrameLaw, matching_frames
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.fingerprint import fingerprint_of
from speechtok.tokenizers.folder import ModelFolder, write_folder
from speechtok.tokenizers.registry import load, located
from speechtok.tokens import Tokens

CODE_VERSION = 1
"""Raised whenever a change of this package changes how the two streams are put together."""
ALIGNMENTS = ("same", "nearest")


class TwoStageTokenizer(Tokenizer):
    """Units of one tokenizer and codes of another on the frames of the latter."""

    scheme = "E"

    def __init__(
        self,
        units: Tokenizer,
        codec: Tokenizer,
        name: str,
        *,
        alignment: str = "same",
        acoustic_levels: int | None = None,
        licence: str = "not stated",
        note: str = "",
    ):
        """
        Args:
            units: scheme B, or anything whose levels are all semantic.
            codec: gives the acoustic levels, and decodes them.
            name: what messages and token files call it.
            alignment: ``same`` insists on equal frame rates; ``nearest`` gives each frame of the codec the unit in
                whose span its middle lies: slower units are repeated, of faster ones some are left out.
            acoustic_levels: the first so many of the codec's; all where None.
            licence: of the weights.
            note: what a user of this very model must know.

        Raises:
            ConfigError: the rates differ and ``same`` was asked for, units that are not all semantic, or no codec.
        """
        if units.semantic_levels != tuple(range(units.levels)) or not units.levels:
            raise ConfigError(f"{units.name} does not give semantic units; take a tokenizer of scheme B")
        if codec.value is not Tokens or not codec.levels:
            raise ConfigError(
                f"{codec.name} gives no codes for the acoustic levels; take a codec such as speechtok-base"
            )
        if alignment not in ALIGNMENTS:
            raise ConfigError(f"alignment is {alignment!r}; give one of {', '.join(ALIGNMENTS)}")
        if alignment == "same" and units.frame_rate != codec.frame_rate:
            raise ConfigError(
                f"{units.name} has {units.frame_rate:g} frames/s and {codec.name} {codec.frame_rate:g}; take two of one"
                f" rate, or alignment: nearest"
            )
        self.units, self.codec, self.alignment = units, codec, alignment
        self.name, self.licence, self.note = name, licence, note
        self.acoustic_levels = codec.checked_levels(acoustic_levels)
        self.sample_rate, self.hop = codec.sample_rate, codec.hop
        self.codebook_sizes = units.codebook_sizes + codec.codebook_sizes[: self.acoustic_levels]
        self.semantic_levels = units.semantic_levels
        self.exact_windows = (units.exact_windows[0] and codec.exact_windows[0], codec.exact_windows[1])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of both tokenizers' fingerprints and of how their frames are matched."""
        parts = [self.units.fingerprint, self.codec.fingerprint, self.alignment, self.acoustic_levels]
        return fingerprint_of(["two_stage", CODE_VERSION, *parts], {})

    def in_windows(self, seconds: float) -> TwoStageTokenizer:
        """The same tokenizers, both with windows of about ``seconds``."""
        other = copy.copy(self)
        other.units, other.codec = self.units.in_windows(seconds), self.codec.in_windows(seconds)
        return other

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        audio = Audio(samples, self.sample_rate)
        semantic = min(levels, self.units.levels)
        codes = [self._on_codec_frames(self.units.encode(audio, semantic).codes, -(-len(samples) // self.hop))]
        if levels > semantic:
            codes.append(self.codec.encode(audio, levels - semantic).codes)
        return np.concatenate(codes)

    def _on_codec_frames(self, units: np.ndarray, frames: int) -> np.ndarray:
        """``units[Q, M]`` of a whole recording to ``[Q, frames]``; the last one is repeated past the end."""
        law = FrameLaw(self.units.sample_rate, self.units.hop, self.units.hop)
        wanted = matching_frames(CodecGrid(self.sample_rate, self.hop), law, frames)
        return units[:, np.minimum(wanted, units.shape[1] - 1)]

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        semantic = max(0, self.units.levels - first_level)
        if len(codes) <= semantic:
            raise NotSupportedError(
                f"{self.name}: the semantic levels alone have no waveform; decode all levels or tokens.acoustic,"
                f" or predict the acoustic levels first"
            )
        return self.codec._decode(codes[semantic:], max(0, first_level - self.units.levels))


def save_two_stage(
    tokenizer: TwoStageTokenizer, folder: str | Path, units: str, codec: str, card: dict[str, Any] | None = None
) -> None:
    """Write a model folder, which names the two others.

    Args:
        tokenizer: what is described.
        folder: made if missing.
        units: name or place under which ``speechtok.load`` finds the units; a folder inside ``folder`` may be meant.
        codec: the same for the codec.
        card: what people should know. Plain JSON values.

    Raises:
        OutputError: the folder cannot be written.
    """
    settings = {"alignment": tokenizer.alignment, "acoustic_levels": tokenizer.acoustic_levels}
    write_folder(folder, "two_stage", tokenizer, {"units": units, "codec": codec} | settings, {}, card)


def from_folder(folder: ModelFolder, device: str = "cpu") -> TwoStageTokenizer:
    """The tokenizer of a folder that ``save_two_stage`` wrote.

    Raises:
        CheckpointError: one of the two cannot be loaded, or they do not fit.
    """
    section = folder.section
    try:
        units, codec = (load(located(folder.path, section[part]), device=device) for part in ("units", "codec"))
        settings = {key: section[key] for key in ("alignment", "acoustic_levels") if key in section}
        return TwoStageTokenizer(units, codec, folder.name, **settings, **folder.says)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(
            f"{folder.path}: its config.json describes no two stages ({error}); restore it"
        ) from error
