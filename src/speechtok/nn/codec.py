"""The codec of SpeechTokenizer: encoder, residual quantizer whose first level can be taught, decoder.

Source: SpeechTokenizer section 3 and its ``model.py``. Encoder and decoder are a choice of the config: ``seanet``
is the paper's, ``frame`` works at token rate.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from speechtok.config import from_mapping, require_whole
from speechtok.errors import ConfigError
from speechtok.nn.frame import FrameConfig, FrameDecoder, FrameEncoder
from speechtok.nn.quantizers import QuantizerConfig, build_quantizer
from speechtok.nn.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder
from speechtok.nn.timbre import Film, TimbreConfig, TimbreEncoder

BACKBONES = {"seanet": (SEANetEncoder, SEANetDecoder), "frame": (FrameEncoder, FrameDecoder)}


@dataclass
class CodecConfig:
    """Everything that shapes a codec. Only the section named by ``backbone`` is used."""

    backbone: str = "seanet"
    """``seanet`` or ``frame``."""
    sample_rate: int = 16000
    dimension: int = 1024
    """Width of the latent and of every codebook."""
    semantic_dimension: int = 768
    """Width of the teacher's features; equal to ``dimension`` makes the projection the identity."""
    codebook_size: int = 1024
    n_q: int = 8
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """Its kind may demand some ``codebook_size`` or ``n_q``; the message says which."""
    seanet: SEANetConfig = field(default_factory=SEANetConfig)
    frame: FrameConfig = field(default_factory=FrameConfig)
    timbre: TimbreConfig | None = None
    """A reference encoder whose vector tells the decoder the voice; null: the codes are all that it gets."""

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ConfigError(f"backbone is {self.backbone!r}; it must be one of {', '.join(BACKBONES)}")
        sizes = ("sample_rate", "dimension", "semantic_dimension", "codebook_size", "n_q")
        require_whole(self, 1, *sizes, section="codec.")
        self.quantizer.require_fit(self.dimension, self.codebook_sizes, self.own_space)

    @property
    def section(self) -> SEANetConfig | FrameConfig:
        """The config of the chosen backbone."""
        return getattr(self, self.backbone)

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return self.section.hop

    @property
    def causal(self) -> bool:
        """True where no output depends on later input."""
        return self.section.causal

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return self.quantizer.codebook_sizes(self.codebook_size, self.n_q)

    @property
    def own_space(self) -> int:
        """Width of the space in which level one is chosen where that is not the latent's, else 0."""
        return getattr(self.section, "own_space", 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, without the backbone that is not used and without a timbre that there is not."""
        unused = {name for name in BACKBONES if name != self.backbone} | ({"timbre"} if self.timbre is None else set())
        return {key: value for key, value in asdict(self).items() if key not in unused}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> CodecConfig:
        """Inverse of ``to_dict``.

        Raises:
            ConfigError: a key that does not exist, or a value of the wrong kind.
        """
        return from_mapping(cls, values, "codec")


def real_frames(lengths: Tensor, frames: int, hop: int) -> Tensor:
    """``mask[B, frames]``, True on the frames of hops that hold some of the ``lengths[B]`` samples."""
    return torch.arange(frames, device=lengths.device) < -(-lengths // hop)[:, None]


class Codec(nn.Module):
    """Waveform to codes and back."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config = config
        encoder, decoder = BACKBONES[config.backbone]
        self.encoder = encoder(config.section, config.dimension)
        sizes = (config.dimension, config.codebook_sizes)
        self.quantizer = build_quantizer(*sizes, config.quantizer, config.own_space)
        self.decoder = decoder(config.section, config.dimension)
        taught = config.own_space or config.dimension
        same = taught == config.semantic_dimension
        self.transform = nn.Identity() if same else nn.Linear(taught, config.semantic_dimension)
        self.timbre_encoder = self.film = None
        if config.timbre is not None:
            self.timbre_encoder = TimbreEncoder(config.timbre, config.sample_rate, config.hop)
            self.film = Film(config.timbre, config.dimension)

    def encode(self, wave: Tensor, levels: int | None = None, lengths: Tensor | None = None) -> Tensor:
        """``wave[B, T] -> codes[B, Q, N]``; ``lengths[B]`` in samples for a padded batch."""
        latent, mask = self.encoder(wave, lengths), None
        if lengths is not None:
            mask = real_frames(lengths, latent.shape[1], self.config.hop)
        return self.quantizer.encode(latent, levels, mask)

    def latent(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the decoder would get were nothing quantized, ``wave[B, T] -> [B, N, D]``."""
        return self.encoder(wave, lengths)[..., self.config.own_space :]

    def timbre(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor | None:
        """The voice of ``wave[B, T]`` as vectors ``[B, D]``; None where the codec has no section ``timbre``."""
        return None if self.timbre_encoder is None else self.timbre_encoder(wave, lengths)

    def voiced(self, latent: Tensor, timbre: Tensor | None) -> Tensor:
        """What the decoder gets: ``latent[B, N, D]`` in the voice ``timbre``, which only a codec with timbre takes."""
        return latent if timbre is None else self.film(latent, timbre)

    def decode(
        self, codes: Tensor, first_level: int = 0, lengths: Tensor | None = None, timbre: Tensor | None = None
    ) -> Tensor:
        """``codes[B, Q, N] -> wave[B, N * hop]``; row 0 is ``first_level``, ``lengths[B]`` counts frames.

        ``timbre[B, D]`` is the voice, for a codec that has been taught to need one.
        """
        return self.decoder(self.voiced(self.quantizer.decode(codes, first_level), timbre), lengths)

    def semantic(self, wave: Tensor) -> Tensor:
        """First-level features in the teacher's space, ``wave[B, T] -> [B, N, S]``."""
        return self.transform(self.quantizer.first(self.encode(wave, levels=1)[:, 0]))

    def encoder_context(self) -> tuple[int, int] | None:
        """Frames of input that one latent frame sees to its left and right; None where that is unbounded."""
        return self.encoder.context()

    def decoder_context(self) -> tuple[int, int] | None:
        """Frames that one decoded frame sees to its left and right; None where that is unbounded."""
        return self.decoder.context()

    def parameters_count(self) -> int:
        """Trained numbers and codebooks, the size that ships."""
        buffers = self.quantizer.named_buffers()
        codebooks = sum(buffer.numel() for name, buffer in buffers if name.endswith(".embed"))
        return sum(p.numel() for p in self.parameters()) + codebooks
