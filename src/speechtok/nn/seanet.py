"""SEANet: the convolutional encoder and decoder of SpeechTokenizer.

Source: SpeechTokenizer section 3.1 and its ``modules/seanet.py``. The layers stand in ``model`` at the
indices of the official state dict, so that published weights map over by renaming alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.nn.conv import Conv1d, ConvTranspose1d, Timed, blank_past_end, weight_norm
from speechtok.nn.sequence import SkipLSTM, Transformer


@dataclass(frozen=True)
class SEANetConfig:
    """Shape of a SEANet encoder and decoder; the defaults are those of SpeechTokenizer."""

    n_filters: int = 64
    """Channels at audio rate; they double with every stride."""
    strides: tuple[int, ...] = (8, 5, 4, 2)
    """In decoder order, coarse to fine; the encoder walks them backwards."""
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    n_residual_layers: int = 1
    dilation_base: int = 2
    """The j-th residual block of a stage is dilated by ``dilation_base ** j``."""
    compress: int = 2
    """Residual blocks narrow to ``channels / compress`` inside."""
    true_skip: bool = False
    """Residual shortcut: the identity, or a 1x1 convolution when false."""
    activation: str = "ELU"
    """``ELU`` or ``Snake``."""
    sequence: str = "lstm"
    """``lstm``, ``transformer`` or ``none`` at the bottleneck."""
    lstm_layers: int = 2
    bidirectional: bool = True
    """The encoder's LSTM runs both ways; ignored where causal, and the decoder's never does."""
    transformer_layers: int = 2
    transformer_heads: int = 8
    transformer_window: int = 32
    """Frames that one block sees on each side, or to the left only where causal."""
    causal: bool = False
    pad_mode: str | None = None
    """``reflect`` or ``constant`` (zeros). Left out: reflect, or constant where causal."""

    def __post_init__(self) -> None:
        if isinstance(self.strides, list):
            object.__setattr__(self, "strides", tuple(self.strides))
        if self.pad_mode is None:
            object.__setattr__(self, "pad_mode", "constant" if self.causal else "reflect")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"seanet.{name} must be {' or '.join(choices)}, not {getattr(self, name)!r}")
        for name in COUNTS:
            if not _is_count(getattr(self, name)):
                raise ConfigError(f"seanet.{name} must be a whole number above 0, not {getattr(self, name)!r}")
        if not (isinstance(self.strides, tuple) and self.strides and all(map(_is_count, self.strides))):
            raise ConfigError(f"seanet.strides must list whole numbers above 0, not {self.strides!r}")
        if self.causal and self.pad_mode == "reflect":
            raise ConfigError("seanet.pad_mode must be 'constant' where causal; 'reflect' looks ahead at the start")
        if self.sequence == "transformer" and self.width % (2 * self.transformer_heads):
            raise ConfigError(f"seanet.transformer_heads, doubled, must divide the width {self.width}")

    @property
    def hop(self) -> int:
        """Samples per latent frame."""
        return math.prod(self.strides)

    @property
    def width(self) -> int:
        """Channels at the bottleneck."""
        return self.n_filters * 2 ** len(self.strides)


CHOICES = {
    "activation": ("ELU", "Snake"),
    "sequence": ("lstm", "transformer", "none"),
    "pad_mode": ("reflect", "constant"),
}
COUNTS = (
    *(
        "n_filters",
        "kernel_size",
        "last_kernel_size",
        "residual_kernel_size",
        "n_residual_layers",
        "dilation_base",
    ),
    *("compress", "lstm_layers", "transformer_layers", "transformer_heads", "transformer_window"),
)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


class ELU(Timed, nn.Module):
    """``x`` where positive, else ``exp(x) - 1``."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return F.elu(x)


class Snake(Timed, nn.Module):
    """``x + sin(alpha x)^2 / alpha`` with one alpha per channel (Ziyin et al. 2020)."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return torch.addcmul(x, torch.sin(self.alpha * x).square(), 1 / (self.alpha + 1e-9))


ACTIVATIONS = {"ELU": ELU, "Snake": Snake}


class ResidualBlock(Timed, nn.Module):
    """Activation, dilated convolution to fewer channels, activation, 1x1 convolution; plus a shortcut."""

    def __init__(self, config: SEANetConfig, channels: int, dilation: int):
        super().__init__()
        hidden = channels // config.compress
        activation = ACTIVATIONS[config.activation]
        self.block = nn.ModuleList(
            [
                activation(channels),
                _conv(config, channels, hidden, config.residual_kernel_size, dilation=dilation),
                activation(hidden),
                _conv(config, hidden, channels, 1),
            ]
        )
        self.shortcut = nn.Identity() if config.true_skip else _conv(config, channels, channels, 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``x[B, C, T] -> [B, C, T]``."""
        y, _ = run(self.block, x, lengths)
        return self.shortcut(x) + y

    def reach(self, low: int, high: int) -> tuple[int, int] | None:
        """That of the dilated convolution."""
        return reach_through(self.block, low, high)


class SEANetEncoder(nn.Module):
    """``wave[B, T] -> latent[B, N, D]`` with ``N = ceil(T / hop)`` for every T >= 1."""

    def __init__(self, config: SEANetConfig, dimension: int):
        super().__init__()
        activation = ACTIVATIONS[config.activation]
        channels = config.n_filters
        layers: list[nn.Module] = [_conv(config, 1, channels, config.kernel_size)]
        for stride in reversed(config.strides):
            layers += _residuals(config, channels)
            layers += [activation(channels), _conv(config, channels, 2 * channels, 2 * stride, stride=stride)]
            channels *= 2
        for sequence in _sequence(config, config.bidirectional and not config.causal):
            layers.append(sequence)
            channels = sequence.outputs
        layers += [activation(channels), _conv(config, channels, dimension, config.last_kernel_size)]
        self.model = nn.ModuleList(layers)

    def forward(self, wave: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]`` in samples for a padded batch; frames past a signal's end are zero."""
        x, lengths = run(self.model, wave.unsqueeze(1), lengths)
        return blank_past_end(x, lengths).transpose(1, 2)

    def context(self) -> tuple[int, int] | None:
        """Frames of signal (left, right) that one latent frame depends on beside its own; None: all."""
        hop = math.prod(layer.stride[0] for layer in self.model if isinstance(layer, Conv1d))
        return context_of(self.model, hop, 1)


class SEANetDecoder(nn.Module):
    """``latent[B, N, D] -> wave[B, N * hop]``."""

    def __init__(self, config: SEANetConfig, dimension: int):
        super().__init__()
        activation = ACTIVATIONS[config.activation]
        channels = config.width
        layers: list[nn.Module] = [_conv(config, dimension, channels, config.kernel_size)]
        layers += _sequence(config, bidirectional=False)
        for stride in config.strides:
            layers += [
                activation(channels),
                weight_norm(ConvTranspose1d(channels, channels // 2, stride, config.causal)),
            ]
            channels //= 2
            layers += _residuals(config, channels)
        layers += [activation(channels), _conv(config, channels, 1, config.last_kernel_size)]
        self.model = nn.ModuleList(layers)
        self.hop = config.hop

    def forward(self, latent: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``lengths[B]`` in frames for a padded batch; samples past a signal's end are zero."""
        x, lengths = run(self.model, latent.transpose(1, 2), lengths)
        return blank_past_end(x, lengths).squeeze(1)

    def context(self) -> tuple[int, int] | None:
        """Latent frames (left, right) that the samples of one frame depend on beside it; None: all."""
        return context_of(self.model, 1, self.hop)


def run(layers: Iterable[nn.Module], x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Apply layers in turn and follow the signals' lengths through them."""
    for layer in layers:
        x = layer(x, lengths)
        lengths = None if lengths is None else layer.out_lengths(lengths)
    return x, lengths


def reach_through(layers: Iterable[nn.Module], low: int, high: int) -> tuple[int, int] | None:
    """Input positions that outputs ``low..high`` of a stack depend on; None where that is unbounded."""
    for layer in reversed(list(layers)):
        reach = layer.reach(low, high)
        if reach is None:
            return None
        low, high = reach
    return low, high


def context_of(layers: Sequence[nn.Module], down: int, up: int) -> tuple[int, int] | None:
    """Frames (left, right) that the outputs of one frame depend on beside it; None: all.

    Args:
        layers: a stack that makes ``up`` outputs of ``down`` inputs, which are one frame.
    """
    reach = reach_through(layers, 0, up - 1)
    return None if reach is None else (max(0, -(reach[0] // down)), max(0, reach[1] // down))


def _conv(config: SEANetConfig, inputs: int, outputs: int, kernel: int, **shape: int) -> Conv1d:
    padding = {"causal": config.causal, "pad_mode": config.pad_mode}
    return weight_norm(Conv1d(inputs, outputs, kernel, **shape, **padding))


def _residuals(config: SEANetConfig, channels: int) -> list[nn.Module]:
    return [ResidualBlock(config, channels, config.dilation_base**j) for j in range(config.n_residual_layers)]


def _sequence(config: SEANetConfig, bidirectional: bool) -> list[SkipLSTM | Transformer]:
    if config.sequence == "lstm":
        return [SkipLSTM(config.width, config.lstm_layers, bidirectional)]
    if config.sequence == "transformer":
        shape = (config.transformer_layers, config.transformer_heads, config.transformer_window)
        return [Transformer(config.width, *shape, config.causal)]
    return []
