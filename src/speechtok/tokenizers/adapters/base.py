"""What all adapters share: a ``transformers`` codec with the interface of ``nn.Codec``, run by ``CodecTokenizer``.

The adapters restore three things that foreign codecs keep each in its own way: one axis order ``codes[B, Q, N]``,
``N == ceil(T / hop)``, and decoded audio of exactly ``N * hop`` samples. What lies between is the model's own
``encode`` and ``decode``, so codes and samples are those of ``transformers``.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from speechtok.errors import CheckpointError, NotSupportedError, TokenError
from speechtok.files import StrPath
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokens import Tokens, nominal_bitrate


@dataclass(frozen=True)
class Shape:
    """What ``CodecTokenizer`` asks of a configuration."""

    sample_rate: int
    hop: int
    codebook_size: int
    n_q: int
    causal: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The published configuration, without what decides no code."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types; part of the fingerprint."""
        return dict(self.settings)


@dataclass(frozen=True)
class Levels:
    """What ``CodecTokenizer`` asks of a quantizer."""

    codebook_sizes: tuple[int, ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """Frames per code of each level."""
        return (1,) * len(self.codebook_sizes)

    def bitrate(self, frame_rate: float) -> float:
        """Bits per second of all levels, were every code equally likely."""
        return nominal_bitrate(frame_rate, self.codebook_sizes)


class ForeignCodec(nn.Module, ABC):
    """A ``transformers`` model with the interface of ``nn.Codec``; subclasses say what differs between kinds."""

    scheme: str = "A"
    note: str = ""
    pads: bool = True
    """Whether the input is filled up with zeros to whole frames; False where the model's own answer is
    ``ceil(T / hop)`` frames, which must not be disturbed."""

    def __init__(self, model: nn.Module, settings: Mapping[str, Any]):
        super().__init__()
        self.model = model
        self.config = self.shape(settings)
        self.quantizer = Levels((self.config.codebook_size,) * self.config.n_q)
        # tells the device of a model that has no buffers of its own
        self.register_buffer("place", torch.empty(0), persistent=False)

    @classmethod
    def refuse(cls, config: Any) -> str | None:
        """Why a model of this configuration cannot keep the contract; None where it can."""
        channels = getattr(config, "audio_channels", 1)
        return None if channels == 1 else f"it hears {channels} channels, speechtok's audio is mono"

    @abstractmethod
    def shape(self, settings: Mapping[str, Any]) -> Shape:
        """The numbers of ``self.model``."""

    @abstractmethod
    def _encode(self, wave: Tensor, levels: int) -> Tensor:
        """The model's own codes ``[B, >= levels, N']`` of ``wave[B, 1, T]``."""

    @abstractmethod
    def _decode(self, codes: Tensor, first_level: int) -> Tensor:
        """The model's own samples ``[B, T']`` or ``[B, 1, T']`` of ``codes[B, Q, N]``."""

    @property
    def semantic_levels(self) -> tuple[int, ...]:
        """Levels that were taught content."""
        return ()

    def encode(self, wave: Tensor, levels: int | None = None) -> Tensor:
        """``wave[B, T] -> codes[B, Q, ceil(T / hop)]``.

        Raises:
            CheckpointError: the model gives fewer frames, so it breaks the length law in a way unknown here.
        """
        levels = levels or self.config.n_q
        frames = -(-wave.shape[-1] // self.config.hop)
        if self.pads:
            wave = pad(wave, (0, frames * self.config.hop - wave.shape[-1]))
        codes = self._encode(wave[:, None], levels)
        if codes.ndim != 3 or codes.shape[1] < levels or codes.shape[2] < frames:
            raise CheckpointError(
                f"{type(self.model).__name__} gave codes {tuple(codes.shape)} where [B, {levels}, {frames}] were due; "
                f"this model cannot be used"
            )
        return codes[:, :levels, :frames]

    def decode(self, codes: Tensor, first_level: int = 0) -> Tensor:
        """``codes[B, Q, N] -> wave[B, N * hop]``; row 0 is ``first_level``.

        A model that gives more samples is cut; one that gives fewer, by less than a frame, is followed by zeros.
        """
        wave = self._decode(codes, first_level).flatten(1)
        missing = codes.shape[-1] * self.config.hop - wave.shape[-1]
        if missing >= self.config.hop:
            raise TokenError(f"{type(self.model).__name__} decoded {missing} samples too few; its hop is not as stated")
        return pad(wave, (0, missing))

    def encoder_context(self) -> tuple[int, int] | None:
        """Frames that one code sees to its left and right; None where that is unbounded or unknown."""
        return None

    def decoder_context(self) -> tuple[int, int] | None:
        """Frames that one decoded frame sees to its left and right; None where that is unbounded or unknown."""
        return None


class TransformersTokenizer(CodecTokenizer):
    """A ``ForeignCodec`` as a tokenizer. Every recording has a pass of its own: padding would leak into the codes."""

    codec: ForeignCodec  # type: ignore[assignment]

    def __init__(self, codec: ForeignCodec, name: str, *, licence: str, normalise: bool = False, device: str = "cpu"):
        """
        Args:
            codec: the model.
            name: what messages and token files call it.
            licence: of the weights.
            normalise: bring each recording to mean 0 and variance 1 first, as its preprocessor configuration asks.
            device: anything torch understands.
        """
        super().__init__(
            codec,  # type: ignore[arg-type]
            name,
            scheme=codec.scheme,
            semantic_levels=codec.semantic_levels,
            licence=licence,
            note=codec.note,
            device=device,
        )
        self.normalise = normalise

    def levels_for(self, bitrate: float) -> int:
        """Most levels that stay within ``bitrate`` bit/s, for ``encode(audio, levels=...)``; at least one."""
        fits = [q for q in range(1, self.levels + 1) if self._bitrate_of(q) <= bitrate]
        return max(fits, default=1)

    def encode_file(self, path: StrPath, levels: int | None = None) -> Tokens:
        """See ``Tokenizer.encode_file``; a recording that is normalised first is held whole."""
        return Tokenizer.encode_file(self, path, levels) if self.normalise else super().encode_file(path, levels)

    def stream(self, rate: int | None = None, levels: int | None = None, frames: int = 1) -> NoReturn:
        """Not available: the caches of ``transformers`` differ from codec to codec.

        Raises:
            NotSupportedError: always.
        """
        raise NotSupportedError(f"{self.name} runs in transformers, where speechtok cannot stream; encode whole files")

    def _config_facts(self) -> dict[str, Any]:
        return self.codec.config.to_dict()

    def _bitrate_of(self, levels: int) -> float:
        return nominal_bitrate(self.frame_rate, self.codebook_sizes[:levels])

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        if self.normalise:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return super()._encode(samples, levels)

    def _encode_padded(self, samples: list[np.ndarray], levels: int, batch_size: int) -> list[np.ndarray]:
        return Tokenizer._encode_padded(self, samples, levels, batch_size)


def with_parts(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """A copy of ``module`` that shares all its weights, but for the named children."""
    other = copy.copy(module)
    other._modules = {**module._modules, **parts}
    return other


def bandwidth_for(model: nn.Module, levels: int) -> float:
    """The smallest of the model's ``target_bandwidths`` that gives ``levels`` levels or more."""
    count = model.quantizer.get_num_quantizers_for_bandwidth
    return min(bandwidth for bandwidth in model.config.target_bandwidths if count(bandwidth) >= levels)


def levels_of(model: nn.Module) -> int:
    """Levels that the largest of the model's ``target_bandwidths`` reaches."""
    highest = model.quantizer.get_num_quantizers_for_bandwidth(max(model.config.target_bandwidths))
    return min(highest, model.config.num_quantizers)
