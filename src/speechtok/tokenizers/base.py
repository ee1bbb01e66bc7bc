"""The contract that every tokenizer keeps: audio in, discrete tokens out, and back.

What a user may rely on, and what ``speechtok verify`` checks for any tokenizer:

- ``frames == ceil(samples / hop)`` for any length from one sample up;
- decoding returns exactly as many samples as were encoded (at the tokenizer's rate);
- the same audio gives the same codes, alone or in a list;
- tokens of another tokenizer are refused, never decoded into noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from speechtok.audio import Audio, read, write
from speechtok.errors import AudioError, ConfigError, NotSupportedError, TokenError
from speechtok.files import StrPath
from speechtok.tokenfile import TokenValue
from speechtok.tokens import Tokens, nominal_bitrate

if TYPE_CHECKING:
    from speechtok.tokenizers.streaming import CodecStream

LOOKS_AHEAD = "is not causal, each frame needs audio from after it"


class Tokenizer(ABC):
    """Speech to codes ``[Q, N]`` (0 is the coarsest level) and back. Subclasses fill the attributes below."""

    value: type[TokenValue] = Tokens
    """What ``encode`` gives and ``decode`` takes."""
    name: str
    scheme: str
    """``A`` codec, ``B`` clustered SSL features, ``C`` continuous, ``D`` text, ``E`` hierarchical."""
    sample_rate: int
    """Samples per second of the audio that the model hears and gives back."""
    hop: int
    """Samples per frame."""
    codebook_sizes: tuple[int, ...]
    """Number of codes of each level, coarsest first."""
    semantic_levels: tuple[int, ...]
    """Levels that were taught content; the others are acoustic."""
    licence: str = "not stated"
    """Licence of the weights."""
    note: str = ""
    """What a user of this very model must know."""
    causal: bool = False
    precision: str = "fp32"
    """Of the arithmetic: ``fp32`` or ``bf16``. Both give tokens of one fingerprint."""
    voices: bool = False
    """Whether ``with_voice`` makes it speak in another one."""
    show_progress: bool = False
    """Whether long audio draws a bar on a terminal; the command turns it on."""
    exact_windows: tuple[bool, bool] = (True, True)
    """Whether encoding and decoding long audio in windows gives, but for rounding, what one piece gives."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Short digest of everything that decides which codes come out; stored with all tokens."""

    @abstractmethod
    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        """``samples[T]`` at ``sample_rate`` -> ``codes[levels, N]``."""

    @abstractmethod
    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        """``codes[Q, N]``, whose row 0 is ``first_level`` -> the samples of N frames, in an array of their own."""

    def _encode_padded(self, samples: list[np.ndarray], levels: int, batch_size: int) -> list[np.ndarray]:
        """Several signals per forward pass; a tokenizer that cannot do so takes them one by one."""
        return [self._encode(one, levels) for one in samples]

    def in_windows(self, seconds: float) -> Tokenizer:
        """The same tokenizer with windows of about ``seconds``; itself where it never cuts audio."""
        return self

    @property
    def levels(self) -> int:
        """Number of code levels."""
        return len(self.codebook_sizes)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def bitrate(self) -> float:
        """Bits per second of all levels, were every code equally likely."""
        return nominal_bitrate(self.frame_rate, self.codebook_sizes)

    def encode(self, audio: Audio, levels: int | None = None) -> Tokens:
        """Tokens of one recording.

        Args:
            audio: any rate; it is resampled to ``sample_rate`` where it differs (soxr, high quality).
            levels: keep the first so many levels only; the finer ones are not computed.

        Returns:
            codes ``[levels, ceil(T / hop)]``, where T counts samples at ``sample_rate``.

        Raises:
            AudioError: not an ``Audio``.
            ConfigError: more levels than the model has, or fewer than one.
        """
        levels = self.checked_levels(levels)
        samples = self._at_rate(audio)
        return self._tokens(self._encode(samples, levels), len(samples))

    def encode_batch(
        self,
        audios: Sequence[Audio],
        exact: bool = True,
        batch_size: int = 8,
        levels: int | None = None,
    ) -> list[Tokens]:
        """Tokens of several recordings, in their order.

        Floating-point sums depend on the shape of the batch: the same recording inside a bigger batch gives
        latents that differ in the last bits, and where two codes are almost equally near, the other one may
        win. So by default every recording has a pass of its own, and the codes equal ``encode`` bit for bit.

        Args:
            audios: recordings of any rates and lengths.
            exact: False puts up to ``batch_size`` recordings into one forward pass, padded and masked.
                ``speechtok verify`` measures how many codes then differ.
            batch_size: recordings per pass when not exact.
            levels: as for ``encode``.

        Raises:
            AudioError, ConfigError: as for ``encode``, before any work is done.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
        levels = self.checked_levels(levels)
        audios = [self._checked_audio(audio) for audio in audios]
        if exact:
            return [self.encode(audio, levels) for audio in audios]
        samples = [self._at_rate(audio) for audio in audios]
        codes = self._encode_padded(samples, levels, batch_size)
        return [self._tokens(one, len(wave)) for one, wave in zip(codes, samples, strict=True)]

    def decode(self, tokens: Tokens) -> Audio:
        """Audio of ``tokens.num_samples`` samples at ``sample_rate``.

        Tokens with fewer levels (``tokens.take(k)``, ``tokens.semantic``) or without the first ones
        (``tokens.acoustic``) are decoded from what they hold.

        Raises:
            TokenError: the tokens come from another tokenizer.
            ConfigError: what makes the sound, such as a vocoder, gives something else than enough samples.
        """
        self._check_own(tokens)
        samples = self._samples(tokens)
        _check_sound(samples, tokens.num_samples, self.name)
        samples = samples[: tokens.num_samples]
        samples.flags.writeable = False  # nobody else holds it, so Audio need not copy it
        return Audio(samples, self.sample_rate)

    def with_voice(self, reference: Audio) -> Tokenizer:
        """The same tokenizer, whose ``decode`` speaks in the voice of a recording, of any rate; a few seconds are best.

        Raises:
            NotSupportedError: its tokens hold the voice, or it has no voice to exchange.
            AudioError: the reference is too short to tell a voice.
        """
        raise NotSupportedError(
            f"{self.name} cannot be given a voice; take a tokenizer whose tokens leave the voice out, or mix levels"
        )

    def encode_file(self, path: StrPath, levels: int | None = None) -> Tokens:
        """``encode(read(path), levels)``. Codecs do it in memory that does not grow with the recording.

        Raises:
            AudioError: as ``audio.read``.
            ConfigError: as ``encode``.
        """
        return self.encode(read(path), levels)

    def decode_file(self, tokens: Tokens, path: StrPath) -> None:
        """``write(path, decode(tokens))``. Codecs do it in memory that does not grow with the recording.

        Raises:
            TokenError, ConfigError: as ``decode``.
            OutputError: as ``audio.write``.
        """
        write(path, self.decode(tokens))

    def stream(self, rate: int | None = None, levels: int | None = None, frames: int = 1) -> CodecStream:
        """Encode while the audio arrives, and decode while the codes arrive: ``with tokenizer.stream() as s: ...``.

        Args:
            rate: of the audio in Hz; it is resampled as it comes where it is not ``sample_rate``.
            levels: as for ``encode``.
            frames: how many are computed at a time. More are faster for each of them, and come later.

        Raises:
            NotSupportedError: this tokenizer cannot; the message says what stands in the way.
            AudioError, ConfigError: no such rate, number of levels or of frames.
        """
        why = "is causal, but speechtok does not know its layers" if self.causal else LOOKS_AHEAD
        raise NotSupportedError(f"{self.name} cannot stream: it {why}; encode whole files")

    def describe(self) -> dict[str, Any]:
        """Everything above as plain types, ready for JSON."""
        return {
            "name": self.name,
            "scheme": self.scheme,
            "sample_rate": self.sample_rate,
            "hop": self.hop,
            "frame_rate": self.frame_rate,
            "levels": self.levels,
            "codebook_sizes": list(self.codebook_sizes),
            "semantic_levels": list(self.semantic_levels),
            "bitrate": self.bitrate,
            "causal": self.causal,
            "licence": self.licence,
            "note": self.note,
            "fingerprint": self.fingerprint,
        }

    def checked_levels(self, levels: int | None) -> int:
        """How many levels ``levels`` asks for (None: all); raises ConfigError where the model has no such number."""
        if levels is None:
            return self.levels
        if not 1 <= levels <= self.levels:
            raise ConfigError(f"{self.name} has {self.levels} levels; asked for {levels}, give 1 to {self.levels}")
        return levels

    def _checked_audio(self, audio: Audio) -> Audio:
        if not isinstance(audio, Audio):
            raise AudioError(
                f"{self.name} encodes speechtok.Audio, not {type(audio).__name__}; use speechtok.read(path) "
                f"or speechtok.Audio(samples, rate), so that the sample rate is known"
            )
        return audio

    def _at_rate(self, audio: Audio) -> np.ndarray:
        audio = self._checked_audio(audio)
        return (audio if audio.rate == self.sample_rate else audio.resample(self.sample_rate)).samples

    def _tokens(self, codes: np.ndarray, num_samples: int) -> Tokens:
        levels = codes.shape[0]
        return Tokens(
            codes=codes,
            codebook_sizes=self.codebook_sizes[:levels],
            sample_rate=self.sample_rate,
            hop=self.hop,
            num_samples=num_samples,
            semantic_levels=tuple(level for level in self.semantic_levels if level < levels),
            tokenizer=self.name,
            fingerprint=self.fingerprint,
        )

    def _samples(self, tokens: Tokens) -> np.ndarray:
        return self._decode(tokens.codes, tokens.first_level)

    def _check_own(self, tokens: TokenValue) -> None:
        if not isinstance(tokens, self.value):
            kind = self.value.__name__
            raise TokenError(f"{self.name} decodes speechtok {kind}, not {type(tokens).__name__}; use {kind}.load")
        if tokens.fingerprint != self.fingerprint:
            raise TokenError(
                f"these tokens were made by {tokens.tokenizer} ({tokens.fingerprint}), not by {self.name} "
                f"({self.fingerprint}); decode them with the model that made them, or encode the audio again"
            )
        # tokens can carry a right fingerprint and still contradict the model, for anybody may write them
        self._check_fit(tokens)

    def _check_fit(self, tokens: Tokens) -> None:
        present = self.codebook_sizes[tokens.first_level : tokens.first_level + tokens.levels]
        if (present, self.sample_rate, self.hop) != (tokens.codebook_sizes, tokens.sample_rate, tokens.hop):
            raise TokenError(
                f"these tokens contradict {self.name}: they have codebooks {tokens.codebook_sizes} from "
                f"level {tokens.first_level}, {tokens.sample_rate} Hz and hop {tokens.hop}; encode again"
            )


def _check_sound(samples: Any, wanted: int, name: str) -> None:
    """Raise ConfigError unless ``samples`` is a float32 array ``[T]`` with T >= ``wanted``."""
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype != np.float32:
        found = f"{samples.dtype}{[*samples.shape]}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise ConfigError(f"{name} decoded to {found} where float32 samples [T] were due; mend its decoder or vocoder")
    if len(samples) < wanted:
        raise ConfigError(
            f"{name} decoded to {len(samples)} samples where {wanted} were due; take a decoder or vocoder of its hop"
        )
