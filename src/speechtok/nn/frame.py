"""A codec backbone that works at frame rate: STFT in, ConvNeXt blocks, inverse STFT out.

All layers run at the token rate (50 Hz), several times cheaper than convolutions at audio rate. In the manner of
Vocos (Siuzdak 2023) and WavTokenizer (Ji et al. 2024), with three choices of our own: several short STFT frames are
stacked into one token frame; the networks correct a linear codec that starts as principal components; and the head's
phases are made consistent by a few differentiable projections, which spares the network from learning continuity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.spectrum import Spectrum, make_consistent

LATENT_SCALE = 3.0
"""Divides the principal components: the weakest that matter then have a spread near one, the trunks' natural scale."""


@dataclass
class FrameConfig:
    """Sizes of the frame-rate backbone."""

    hop: int = 320
    """Samples per token frame."""
    n_fft: int = 640
    """STFT window in samples."""
    stack: int = 2
    """STFT frames per token frame; the STFT hop is ``hop / stack``."""
    width: int = 320
    expansion: int = 3
    kernel_size: int = 7
    encoder_blocks: int = 4
    decoder_blocks: int = 6
    floor: float = 0.05
    """Added to magnitudes before the logarithm; what lies below it is not worth bits."""
    emphasis: float = 0.5
    """Features at relative frequency x in 0..1 are weighted by ``(1 + emphasis_slope * x) ** -emphasis``."""
    emphasis_slope: float = 8.0
    consistency_iterations: int = 8
    """Phase projections when decoding (``nn.spectrum.make_consistent``)."""
    own_space: int = 0
    """Width of a space in which level one is chosen, beside the latent; 0: in the latent, as the other levels."""
    causal: bool = False
    """No look-ahead. The projections need the future, so a causal codec has none of them."""

    def __post_init__(self) -> None:
        sizes = ("hop", "n_fft", "stack", "width", "expansion", "kernel_size", "encoder_blocks", "decoder_blocks")
        require_whole(self, 1, *sizes, section="frame.")
        require_whole(self, 0, "consistency_iterations", "own_space", section="frame.")
        if not 0 < self.floor < math.inf:
            raise ConfigError(f"frame.floor must be a number above 0, not {self.floor!r}")
        if self.causal and self.consistency_iterations:
            raise ConfigError("a causal frame codec cannot look ahead; set codec.frame.consistency_iterations to 0")
        if self.hop % self.stack:
            raise ConfigError(f"frame.hop {self.hop} must be a multiple of frame.stack {self.stack}")

    @property
    def overlap(self) -> int:
        """Samples shared by neighbouring STFT windows."""
        return self.n_fft - self.hop // self.stack


class ConvNeXtBlock(nn.Module):
    """Depth-wise convolution over time, then a two-layer perceptron over channels, ``[B, N, C] -> [B, N, C]``."""

    def __init__(self, width: int, expansion: int, kernel_size: int, causal: bool, scale: float):
        super().__init__()
        self.padding = (kernel_size - 1, 0) if causal else (kernel_size // 2, (kernel_size - 1) // 2)
        self.depthwise = nn.Conv1d(width, width, kernel_size, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, width * expansion)
        self.down = nn.Linear(width * expansion, width)
        self.gamma = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = x if mask is None else x * mask  # frames past the end are silence to their neighbours
        return self.mixed(x, self.depthwise(F.pad(y.transpose(1, 2), self.padding)).transpose(1, 2))

    def mixed(self, x: Tensor, y: Tensor) -> Tensor:
        """What follows the convolution, whose input was ``x[B, N, C]`` and whose output is ``y[B, N, C]``."""
        return x + self.gamma * self.down(F.gelu(self.up(self.norm(y))))


class Trunk(nn.Module):
    """Linear in, a stack of blocks, norm, linear out: ``[B, N, in] -> [B, N, out]``."""

    def __init__(self, config: FrameConfig, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.inputs = nn.Linear(inputs, config.width)
        self.norm_in = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(
            ConvNeXtBlock(config.width, config.expansion, config.kernel_size, config.causal, 1 / blocks)
            for _ in range(blocks)
        )
        self.norm_out = nn.LayerNorm(config.width)
        self.outputs = nn.Linear(config.width, outputs)

    def hidden(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """``[B, N, in] -> [B, N, width]``, what the last layer reads."""
        x = self.norm_in(self.inputs(x))
        for block in self.blocks:
            x = block(x, mask)
        return self.norm_out(x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.outputs(self.hidden(x, mask))

    def context(self) -> tuple[int, int]:
        """Frames seen to the left and to the right."""
        return tuple(sum(block.padding[side] for block in self.blocks) for side in (0, 1))  # type: ignore[return-value]


class LogSpectrum(nn.Module):
    """Weighted log magnitudes, the features in which this backbone encodes and predicts.

    High frequencies weigh less, as they do for the ear, so that squared errors and code distances spend the bits
    where speech is understood.
    """

    def __init__(self, config: FrameConfig, reach: int | None):
        super().__init__()
        self.spectrum = Spectrum(config.n_fft, config.hop // config.stack, reach)
        self.stack, self.floor = config.stack, config.floor
        self.size = config.stack * self.spectrum.bins
        bins = torch.linspace(0, 1, self.spectrum.bins)
        weight = (1 + config.emphasis_slope * bins) ** -config.emphasis
        self.register_buffer("weight", weight / weight.square().mean().sqrt(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """``wave[B, N * hop] -> features[B, N, stack * bins]``."""
        return self.of(self.spectrum.analyse(wave))

    def of(self, spectrum: Tensor) -> Tensor:
        """``complex spectrum[B, M, bins] -> features[B, M / stack, stack * bins]``."""
        logs = torch.log(spectrum.abs() + self.floor) * self.weight
        return logs.reshape(spectrum.shape[0], -1, self.size)

    def magnitude(self, features: Tensor) -> Tensor:
        """Inverse of the logarithm, ``[B, N, stack * bins] -> [B, M, bins]``; below the floor lies silence."""
        logs = features.reshape(features.shape[0], -1, self.spectrum.bins) / self.weight
        return (torch.exp(logs.clamp(max=math.log(self.spectrum.n_fft))) - self.floor).clamp_min(1e-4)


class OwnSpace(nn.Sequential):
    """What level one is chosen by, ``[B, N, width] -> [B, N, S]``, of fixed length.

    A teacher's loss would rather scale the vectors up than part them, faster than codes can follow; these die then.
    """

    def __init__(self, width: int, outputs: int):
        super().__init__(nn.Linear(width, outputs), nn.LayerNorm(outputs, elementwise_affine=False))


class FrameEncoder(nn.Module):
    """``wave[B, T] -> latent[B, N, S + D]`` with ``N = ceil(T / hop)``: a linear map plus what the trunk adds.

    The S numbers in front, ``own_space`` of the config, are what level one is chosen by; the trunk alone makes them.
    """

    def __init__(self, config: FrameConfig, dimension: int):
        super().__init__()
        self.config = config
        self.features = LogSpectrum(config, config.overlap if config.causal else None)
        self.linear = nn.Linear(self.features.size, dimension).requires_grad_(False)
        self.trunk = Trunk(config, self.features.size, dimension, config.encoder_blocks)
        self.own = OwnSpace(config.width, config.own_space) if config.own_space else None

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode; ``lengths[B]`` in samples says where each padded signal of a batch ends."""
        features = self.features(F.pad(wave, (0, -wave.shape[1] % self.config.hop)))
        mask = frame_mask(lengths, self.config.hop, features.shape[1])
        return self.latent(features, self.trunk.hidden(features, mask))

    def latent(self, features: Tensor, hidden: Tensor) -> Tensor:
        """``features[B, N, stack * bins]`` and what the trunk makes of them, ``hidden[B, N, width]``, to the latent."""
        latent = self.linear(features) + self.trunk.outputs(hidden)
        return latent if self.own is None else torch.cat([self.own(hidden), latent], 2)

    def context(self) -> tuple[int, int]:
        """Frames of context on each side of a latent frame."""
        left, right = self.trunk.context()
        before, after = self.features.spectrum.padding
        return left + _frames(before, self.config), right + _frames(after, self.config)


class FrameDecoder(nn.Module):
    """``latent[B, N, D] -> wave[B, N * hop]``: magnitudes by a linear map plus the trunk, phases by the trunk."""

    def __init__(self, config: FrameConfig, dimension: int):
        super().__init__()
        self.config = config
        self.features = LogSpectrum(config, 0 if config.causal else None)
        self.linear = nn.Linear(dimension, self.features.size).requires_grad_(False)
        self.trunk = Trunk(config, dimension, 3 * self.features.size, config.decoder_blocks)

    def forward(self, latent: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Decode; ``lengths[B]`` counts the real frames of a padded batch."""
        features, phasor = self.predict(latent, lengths)
        return self.render(features, phasor, self.config.consistency_iterations, lengths)

    def predict(self, latent: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Features ``[B, N, stack * bins]`` (see :class:`LogSpectrum`) and complex ``[B, M, bins]`` with the phases."""
        return self.predicted(latent, self.trunk(latent, frame_mask(lengths, 1, latent.shape[1])))

    def predicted(self, latent: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """What ``predict`` gives, from ``latent`` and the trunk's answer ``out[B, N, 3 * stack * bins]``."""
        out = out.to(latent.dtype)  # autocast may have cut it
        residual, real, imaginary = out.split(self.features.size, dim=2)
        shape = (latent.shape[0], -1, self.features.spectrum.bins)
        return self.linear(latent) + residual, torch.complex(real.reshape(shape), imaginary.reshape(shape))

    def render(self, features: Tensor, phasor: Tensor, iterations: int, lengths: Tensor | None = None) -> Tensor:
        """Waveform of predicted features and phasors, ``[B, N * hop]``."""
        mask = frame_mask(lengths, 1, features.shape[1])
        if mask is not None:
            mask = mask.squeeze(2).repeat_interleave(self.config.stack, 1)
        return make_consistent(self.features.spectrum, self.features.magnitude(features), phasor, iterations, mask)

    def context(self) -> tuple[int, int]:
        """Frames of context on each side of a decoded frame."""
        left, right = self.trunk.context()
        # a sample hears the frames that reach forward to it and those that reach back; each projection a window more
        before, after = self.features.spectrum.padding
        spread = self.config.consistency_iterations * self.config.overlap
        return left + _frames(after + spread, self.config), right + _frames(before + spread, self.config)


@torch.no_grad()
def start_from_principal_components(encoder: FrameEncoder, decoder: FrameDecoder, wave: Tensor) -> None:
    """Begin as the best linear codec of ``wave[B, T]``: principal components in, their transpose out.

    The linear maps stay as they are; the trunks start by adding nothing and learn what a linear map cannot. Without
    this, thousands of steps go into learning to pass the spectrum through the bottleneck at all.
    """
    features = encoder.features(wave).flatten(0, 1)
    mean = features.mean(0)
    _, _, axes = torch.linalg.svd((features - mean).T @ (features - mean) / len(features))
    axes = axes[: encoder.linear.out_features] / LATENT_SCALE
    encoder.linear.weight.copy_(axes)
    encoder.linear.bias.copy_(-axes @ mean)
    decoder.linear.weight.copy_(axes.T * LATENT_SCALE**2)
    decoder.linear.bias.copy_(mean)
    encoder.trunk.outputs.weight.zero_()
    encoder.trunk.outputs.bias.zero_()
    decoder.trunk.outputs.weight[: decoder.features.size].zero_()
    decoder.trunk.outputs.bias[: decoder.features.size].zero_()
    spread = ((features - mean) @ axes.T).std(0)
    decoder.trunk.inputs.weight.div_(spread.clamp_min(0.5))  # weak components must be heard, too


def frame_mask(lengths: Tensor | None, hop: int, frames: int) -> Tensor | None:
    """``[B, N, 1]`` with 1 on the frames that hold signal; None stands for "all of them"."""
    if lengths is None:
        return None
    counts = -(-lengths // hop)
    return (torch.arange(frames, device=lengths.device) < counts.unsqueeze(1)).unsqueeze(2).float()


def _frames(samples: int, config: FrameConfig) -> int:
    return -(-samples // config.hop)
