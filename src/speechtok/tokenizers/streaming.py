"""Codes while the audio arrives, and audio while the codes arrive: the stream of a causal codec.

Everything that the past means to the future lies in two objects, ``encoder`` and ``decoder``, which hold a buffer per
layer (``nn.streaming``). The encoder takes a fixed number of frames at a time, however the audio is cut: the same sums
run in the same order for every cutting, so the codes do not depend on it, bit for bit. Offline encoding sums over other
shapes; its codes are the same but for near ties, where rounding decides. Streams compute in fp32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from speechtok.audio import RateStream, checked_samples
from speechtok.errors import AudioError, ConfigError, TokenError
from speechtok.nn import streaming_frame  # noqa: F401 - tells `streamed` of the frame codec
from speechtok.nn.streaming import streamed
from speechtok.tokens import Tokens

if TYPE_CHECKING:
    from speechtok.tokenizers.codec import CodecTokenizer

_DECODED_AT_ONCE = 500
"""Frames; more codes than that are decoded in several goes, so that memory stays bounded."""


class CodecStream:
    """See ``Tokenizer.stream``. One stream encodes one signal and decodes one, which need have nothing in common."""

    def __init__(self, tokenizer: CodecTokenizer, rate: int | None, levels: int | None, frames: int):
        if frames < 1:
            raise ConfigError(f"frames is {frames}; a stream takes at least 1 at a time")
        unit = math.lcm(*tokenizer.codec.quantizer.strides)
        self._tokenizer, self.levels = tokenizer, tokenizer.checked_levels(levels)
        """How many ``encode`` gives."""
        self.rate = tokenizer.sample_rate if rate is None else rate
        """Of the audio that ``encode`` takes, in Hz."""
        self.frames = -(-frames // unit) * unit
        """Frames that are computed at a time."""
        self.heard = 0
        """Samples encoded so far, at the tokenizer's rate; once finished, the length of the signal."""
        self.spoken = 0
        """Samples decoded so far."""
        self._resampler = RateStream(self.rate, tokenizer.sample_rate)
        self._waiting = np.empty(0, np.float32)
        self._finished = False
        self.encoder, self.decoder = streamed(tokenizer.codec.encoder), streamed(tokenizer.codec.decoder)

    def __enter__(self) -> CodecStream:
        return self

    def __exit__(self, *_: object) -> None:
        """Forget the past; nothing can be encoded or decoded any more."""
        self._finished, self.encoder, self.decoder = True, None, None

    @cached_property
    def latency(self) -> int:
        """Samples at ``rate`` that must be heard before the first code, computing apart."""
        wanted = self.frames * self._tokenizer.hop
        if self.rate == self._tokenizer.sample_rate:
            return wanted
        trial, silence = RateStream(self.rate, self._tokenizer.sample_rate), np.zeros(1, np.float32)
        while trial.made < wanted:
            trial.push(silence)
        return trial.taken

    @property
    def latency_seconds(self) -> float:
        """The same in seconds."""
        return self.latency / self.rate

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """The codes that can be known now.

        Args:
            samples: the next ``[n]`` of the signal at ``rate``, floating point in [-1, 1]; n >= 0.

        Returns:
            int64 ``[levels, m]`` of the next m frames, m >= 0.

        Raises:
            AudioError: samples that ``Audio`` would refuse, but for there being none; or the stream is finished.
        """
        self._require_open()
        return self._encoded(self._resampler.push(checked_samples(samples)))

    def finish(self) -> np.ndarray:
        """The codes of what is left: ``encode`` and ``finish`` together give ``ceil(heard / hop)`` frames.

        Raises:
            AudioError: finished before.
        """
        self._require_open()
        codes = [self._encoded(self._resampler.finish())]
        if len(self._waiting):
            codes.append(self._step(self._waiting, last=True))
        self._finished, self._waiting = True, self._waiting[:0]
        return np.concatenate(codes, axis=1)

    def tokens(self, pieces: Iterable[np.ndarray]) -> Tokens:
        """The tokens of the whole signal, from what ``encode`` and ``finish`` gave.

        Raises:
            TokenError: pieces are missing, or the signal held no samples.
        """
        none = np.empty((self.levels, 0), np.int64)
        return self._tokenizer._tokens(np.concatenate([none, *pieces], axis=1), self.heard)

    @torch.inference_mode()
    def decode(self, codes: np.ndarray, first_level: int = 0, until: int | None = None) -> np.ndarray:
        """The sound of the next frames, without delay.

        Args:
            codes: whole numbers ``[Q, n]``, n >= 0; row 0 is ``first_level``.
            until: where the signal ends, in samples; what lies past it is left out. Give it with the last codes
                (``tokens.num_samples``, ``heard`` of a finished stream).

        Returns:
            float32 ``[n * hop]`` at the tokenizer's rate, fewer where ``until`` says so.

        Raises:
            TokenError: no codes of this tokenizer.
            AudioError: the stream has been left.
        """
        if self.decoder is None:
            raise AudioError("this stream has been left; open another one with tokenizer.stream()")
        codes = self._checked_codes(codes, first_level)
        codec, pieces = self._tokenizer.codec, [np.empty(0, np.float32)]
        for start in range(0, codes.shape[1], _DECODED_AT_ONCE):
            part = self._tokenizer._tensor(codes[:, start : start + _DECODED_AT_ONCE])[None]
            pieces.append(self.decoder(codec.quantizer.decode(part, first_level), False)[0].cpu().numpy())
        samples = np.concatenate(pieces)
        samples = samples if until is None else samples[: max(0, until - self.spoken)]
        self.spoken += len(samples)
        return samples

    def _encoded(self, samples: np.ndarray) -> np.ndarray:
        """Codes of all whole steps; what is left waits."""
        self.heard += len(samples)
        waiting = np.concatenate([self._waiting, samples])
        size = self.frames * self._tokenizer.hop
        whole = len(waiting) // size * size
        self._waiting = waiting[whole:].copy()
        codes = [self._step(waiting[start : start + size], last=False) for start in range(0, whole, size)]
        return np.concatenate([np.empty((self.levels, 0), np.int64), *codes], axis=1)

    @torch.inference_mode()
    def _step(self, samples: np.ndarray, last: bool) -> np.ndarray:
        latent = self.encoder(self._tokenizer._tensor(samples)[None], last)
        return self._tokenizer.codec.quantizer.encode(latent, self.levels)[0].cpu().numpy()

    def _require_open(self) -> None:
        if self._finished:
            raise AudioError("this stream has been finished; open another one with tokenizer.stream()")

    def _checked_codes(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        codes = np.asarray(codes)
        name, sizes = self._tokenizer.name, self._tokenizer.codebook_sizes[max(0, first_level) :]
        if codes.ndim != 2 or codes.dtype.kind not in "iu" or not 1 <= len(codes) <= len(sizes) or first_level < 0:
            raise TokenError(
                f"{name} decodes whole numbers [Q, n] with Q of 1 to {len(sizes)} levels from level {first_level},"
                f" got {codes.dtype} of shape {codes.shape}"
            )
        limits = np.array(sizes[: len(codes)])[:, None]
        if ((codes < 0) | (codes >= limits)).any():
            raise TokenError(f"codes leave the codebooks {sizes[: len(codes)]} of {name}; they are not its codes")
        return codes.astype(np.int64)
