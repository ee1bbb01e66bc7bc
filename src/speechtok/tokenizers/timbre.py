"""A codec whose decoder is told the voice: its tokens carry a timbre vector beside their codes.

The codes then need not say who speaks. Codes with the timbre of another recording are voice conversion.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np
import torch

from speechtok.audio import Audio
from speechtok.errors import NotSupportedError, TokenError
from speechtok.files import StrPath
from speechtok.nn.pooling import sums
from speechtok.recording import Recording
from speechtok.tokenizers.chunking import Window
from speechtok.tokenizers.codec import CodecTokenizer, Sound
from speechtok.tokens import Tokens


class TimbreTokenizer(CodecTokenizer):
    """A ``Codec`` with a section ``timbre``. ``encode`` stores the recording's own voice in ``Tokens.timbre``."""

    voices = True
    voice: np.ndarray | None = None
    """What ``decode`` speaks in, whatever timbre the tokens carry; None where that one counts."""

    def encode(self, audio: Audio, levels: int | None = None) -> Tokens:
        """See ``Tokenizer.encode``; the tokens carry the timbre of ``audio``."""
        levels = self.checked_levels(levels)
        audio = Audio(self._at_rate(audio), self.sample_rate)  # resampled once for both
        return self.with_timbre(super().encode(audio, levels), audio)

    def encode_batch(
        self, audios: Sequence[Audio], exact: bool = True, batch_size: int = 8, levels: int | None = None
    ) -> list[Tokens]:
        """See ``Tokenizer.encode_batch``. Recordings share passes for their codes, never for their timbres."""
        tokens = super().encode_batch(audios, exact, batch_size, levels)
        return tokens if exact else [self.with_timbre(*pair) for pair in zip(tokens, audios, strict=True)]

    def encode_file(self, path: StrPath, levels: int | None = None) -> Tokens:
        """See ``Tokenizer.encode_file``; the file is read twice, the second time for its timbre."""
        return self.with_timbre(super().encode_file(path, levels), self._timbre(Recording(path, self.sample_rate)))

    def stream(self, rate: int | None = None, levels: int | None = None, frames: int = 1) -> NoReturn:
        """Raises NotSupportedError: the timbre of a recording is known at its end."""
        raise NotSupportedError(
            f"{self.name} cannot stream: its tokens carry the voice of the whole recording, which is known at the end;"
            f" encode whole files"
        )

    def timbre(self, audio: Audio) -> np.ndarray:
        """The voice of a recording of any rate and length, float32 ``[D]``; memory stays bounded."""
        return self._timbre(self._at_rate(audio))

    @torch.inference_mode()
    def _timbre(self, samples: np.ndarray | Recording) -> np.ndarray:
        encoder = self.codec.timbre_encoder
        count = total = 0.0
        for window in self._plan(self._count(samples), encoder.context()):
            wave = self._tensor(samples[window.start * self.hop : window.stop * self.hop])[None]
            one, more = sums(encoder.frames(wave)[:, window.kept].double())
            count, total = count + one, total + more
        return encoder.vector(count, total)[0].cpu().numpy()

    def with_timbre(self, tokens: Tokens, reference: Audio | Tokens | np.ndarray) -> Tokens:
        """The same codes in another voice.

        Args:
            tokens: of this tokenizer, with or without a timbre.
            reference: a recording of the voice, tokens that carry it, or the vector itself, float32 ``[D]``.

        Raises:
            TokenError: tokens of another tokenizer, a reference without timbre, or a vector of another size.
        """
        self._check_own(tokens)
        if isinstance(reference, Tokens):
            self._check_own(reference)
            reference = self._timbre_of(reference)
        vector = self.timbre(reference) if isinstance(reference, Audio) else reference
        voiced = replace(tokens, codes=tokens.packed, timbre=vector)
        self._timbre_of(voiced)
        return voiced

    def with_voice(self, reference: Audio) -> TimbreTokenizer:
        """See ``Tokenizer.with_voice``; tokens without a timbre can be decoded then, too."""
        other = copy.copy(self)
        other.voice = self.timbre(reference)
        return other

    def decode_latents(self, rows: np.ndarray) -> NoReturn:
        """Raises NotSupportedError: latents alone have no voice."""
        raise NotSupportedError(f"{self.name} decodes in a voice, which latents do not hold; decode its tokens")

    def _samples(self, tokens: Tokens) -> np.ndarray:
        return self._over_windows(tokens.frames, self._sound_of(tokens))

    def _sound_of(self, tokens: Tokens) -> Sound:
        timbre = self._tensor(self._timbre_of(tokens) if self.voice is None else self.voice)[None]

        def sound(window: Window) -> torch.Tensor:
            codes = self._tensor(tokens.between(window.start, window.stop))[None]
            return self.runner.decode(codes, tokens.first_level, None, timbre)

        return sound

    def _decode(self, codes: np.ndarray, first_level: int) -> NoReturn:
        raise NotSupportedError(f"{self.name} decodes in a voice, which codes alone do not hold; decode its tokens")

    def _timbre_of(self, tokens: Tokens) -> np.ndarray:
        """The timbre that ``tokens`` carry. Raises TokenError where they have none, or one of another size."""
        size = self.codec.config.timbre.dimension
        if tokens.timbre is None:
            raise TokenError(
                f"these tokens hold no timbre, and {self.name} decodes in a voice; give them one with"
                f" tokenizer.with_timbre(tokens, audio)"
            )
        if len(tokens.timbre) != size:
            raise TokenError(f"a timbre of {self.name} has {size} numbers, not {len(tokens.timbre)}; encode again")
        return tokens.timbre
