"""CTX-vec2wav: waveforms of discrete tokens, in the voice of a prompt.

Two Conformer encoders hear the tokens and, through an attention that knows no order, frames of a reference; a back end
makes the waveform. CTX-vec2wav (Du et al. 2024, "UniCATS") has a branch for prosody and a prompt of mel frames, its
alpha version (Guo et al. 2024, "LSCodec") has neither; here both are choices. Layer sizes: conf/ctxv2w.v1.yaml.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from speechtok.config import from_mapping, require_whole
from speechtok.errors import ConfigError
from speechtok.nn.conformer import Conformer, ConformerConfig, TimeConv
from speechtok.nn.frame import FrameConfig, FrameDecoder
from speechtok.nn.hifigan import HiFiGAN, HiFiGANConfig

PROSODY = 3
"""Numbers per frame: voicing, log-pitch, log-energy (see ``train.prosody``)."""
PROMPT_LAYERS = ((128, 3), (256, 5), (512, 5))
"""Channels and kernels of the convolutions that a prompt goes through before the last one, to the Conformer's width."""


@dataclass
class VocoderConfig:
    """Everything that shapes a vocoder. Of ``hifigan`` and ``frame`` only the section named by ``backend`` is used."""

    sample_rate: int = 16000
    hop: int = 320
    """Samples per token frame."""
    codebook_sizes: tuple[int, ...] = (1024,)
    """Of the tokens' levels."""
    code_dimension: int = 512
    """Width of the vectors of the tokens; those of several levels are added."""
    prompt_dimension: int = 80
    """Width of the prompt's frames."""
    repeat: int = 2
    """Frames inside for every token frame."""
    prosody: bool = False
    """Whether voicing, pitch and energy are predicted, and heard by the second encoder."""
    bands: int = 80
    """Of the mel spectrogram that the second encoder foretells in training."""
    conformer: ConformerConfig = field(default_factory=ConformerConfig)
    """Of each of the two encoders."""
    backend: Literal["hifigan", "frame"] = "hifigan"
    """``hifigan`` is the papers', ``frame`` the decoder of a frame codec, many times cheaper."""
    hifigan: HiFiGANConfig = field(default_factory=HiFiGANConfig)
    frame: FrameConfig = field(default_factory=FrameConfig)
    latent: int = 128
    """Width of what a frame backend decodes."""

    def __post_init__(self) -> None:
        sizes = ("sample_rate", "hop", "code_dimension", "prompt_dimension", "repeat", "bands", "latent")
        require_whole(self, 1, *sizes, section="vocoder.")
        if self.hop % self.repeat or self.step != self.section.hop:
            raise ConfigError(
                f"vocoder: {self.repeat} frames of {self.backend}'s {self.section.hop} samples do not make the hop of"
                f" {self.hop}; correct repeat or {'rates' if self.backend == 'hifigan' else 'frame.hop'}"
            )

    @property
    def section(self) -> HiFiGANConfig | FrameConfig:
        """The config of the chosen backend."""
        return getattr(self, self.backend)

    @property
    def step(self) -> int:
        """Samples per frame inside."""
        return self.hop // self.repeat

    def to_dict(self) -> dict[str, Any]:
        """Plain types, without the backend that is not used."""
        unused = "frame" if self.backend == "hifigan" else "hifigan"
        return {key: value for key, value in asdict(self).items() if key != unused}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> VocoderConfig:
        """Inverse of ``to_dict``.

        Raises:
            ConfigError: a key that does not exist, or a value of the wrong kind.
        """
        return from_mapping(cls, values, "vocoder")


class Foretold(NamedTuple):
    """What the encoders give for M = N * repeat frames."""

    states: Tensor
    """``[B, M, C]``, what the back end makes sound of."""
    mel: Tensor
    """``[B, M, bands]``, a log-mel spectrogram."""
    prosody: Tensor | None
    """``[B, M, PROSODY]`` as predicted, where the vocoder has that branch."""


class PromptLayer(nn.Module):
    """Convolution, norm over everything, rectifier, beside a linear way around; ``[B, C, P] -> [B, O, P]``."""

    def __init__(self, inputs: int, outputs: int, kernel: int):
        super().__init__()
        self.conv, self.around = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.Conv1d(inputs, outputs, 1)
        self.dropout, self.norm = nn.Dropout(0.1), nn.GroupNorm(1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * (torch.relu(self.norm(self.dropout(self.conv(x)))) + self.around(x))


class PromptNet(nn.Sequential):
    """Frames of a reference made ready for attention, ``[B, P, D] -> [B, P, width]``."""

    def __init__(self, inputs: int, width: int):
        layers, channels = [], inputs
        for outputs, kernel in (*PROMPT_LAYERS, (width, 3)):
            layers.append(PromptLayer(channels, outputs, kernel))
            channels = outputs
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ProsodyBranch(nn.Module):
    """Prosody of ``states[B, M, C]``, and how it is heard."""

    def __init__(self, width: int, dropout: float):
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(2):
            parts += [TimeConv(width, width, 3), nn.ReLU(), nn.LayerNorm(width), nn.Dropout(dropout)]
        self.predictor = nn.Sequential(*parts, nn.Linear(width, PROSODY))
        self.heard = TimeConv(PROSODY, width, 3)


class FrameBackend(nn.Module):
    """The decoder of a frame codec behind a linear map to its latents, ``states[B, M, C] -> wave[B, M * hop]``."""

    def __init__(self, config: FrameConfig, inputs: int, latent: int):
        super().__init__()
        self.project = nn.Linear(inputs, latent)
        self.decoder = FrameDecoder(config, latent)

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.project(states).float())


class CtxVec2Wav(nn.Module):
    """``codes[B, Q, N]`` and ``prompt[B, P, D]`` to ``wave[B, N * hop]``."""

    def __init__(self, config: VocoderConfig):
        super().__init__()
        self.config = config
        shape = config.conformer
        self.codes = nn.ModuleList(nn.Embedding(size, config.code_dimension) for size in config.codebook_sizes)
        self.prompt = PromptNet(config.prompt_dimension, shape.width)
        self.first = Conformer(shape, config.code_dimension, shape.width)
        self.prosody = ProsodyBranch(shape.width, shape.dropout) if config.prosody else None
        self.second = Conformer(shape, shape.width, shape.width)
        self.mel = nn.Linear(shape.width, config.bands)
        hifigan = config.backend == "hifigan"
        self.backend = (
            HiFiGAN(config.hifigan, shape.width) if hifigan else FrameBackend(config.frame, shape.width, config.latent)
        )

    def foretell(self, codes: Tensor, prompt: Tensor, prosody: Tensor | None = None) -> Foretold:
        """What the encoders make of ``codes[B, Q, N]`` in the voice of ``prompt[B, P, D]``.

        Args:
            prosody: ``[B, M, PROSODY]`` to be followed; what is predicted, where None.
        """
        vectors = sum(table(row) for table, row in zip(self.codes, codes.unbind(1), strict=True))
        voice = self.prompt(prompt)
        states = self.first(vectors.repeat_interleave(self.config.repeat, 1), voice)
        predicted = None
        if self.prosody is not None:
            predicted = self.prosody.predictor(states)
            states = states + self.prosody.heard(predicted if prosody is None else prosody)
        states = self.second(states, voice)
        return Foretold(states, self.mel(states), predicted)

    def forward(self, codes: Tensor, prompt: Tensor, prosody: Tensor | None = None) -> Tensor:
        """See the class; the prosody is predicted where None."""
        return self.backend(self.foretell(codes, prompt, prosody).states)

    def parameters_count(self) -> int:
        """Numbers in it, the size that ships."""
        return sum(parameter.numel() for parameter in self.parameters())
