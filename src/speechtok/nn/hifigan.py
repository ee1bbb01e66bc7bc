"""HiFi-GAN's generator (Kong et al. 2020, section 2.2): transposed convolutions, each followed by parallel residual
blocks of several kernels and dilations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.conv import weight_norm

SLOPE = 0.1
"""Of the leaky rectifiers."""


@dataclass
class HiFiGANConfig:
    """Sizes; the defaults are the first version's channels and kernels, and the rates of 10 ms frames at 16 kHz."""

    channels: int = 512
    """After the first layer; every stage halves them."""
    rates: tuple[int, ...] = (8, 5, 2, 2)
    """Upsampling of each stage; their product is the hop."""
    kernels: tuple[int, ...] = (3, 7, 11)
    """Of the residual blocks that run side by side."""
    dilations: tuple[int, ...] = (1, 3, 5)
    """Of the layers of every residual block."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "channels", section="hifigan.")
        if not self.rates or self.channels % 2 ** len(self.rates):
            raise ConfigError(f"hifigan.channels={self.channels} must halve evenly {len(self.rates)} times")
        if not all(kernel % 2 for kernel in self.kernels):
            raise ConfigError(f"hifigan.kernels={list(self.kernels)} must be odd, to have a middle")

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.rates)


class ResidualBlock(nn.Module):
    """A dilated and a plain convolution with a skip, once for each dilation; ``[B, C, T]``."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]):
        super().__init__()
        self.dilated = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, kernel, padding=kernel // 2 * d, dilation=d)) for d in dilations
        )
        self.plain = nn.ModuleList(
            weight_norm(nn.Conv1d(channels, channels, kernel, padding=kernel // 2)) for _ in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, SLOPE)), SLOPE))
        return x


class Upsampling(nn.Module):
    """``[B, C, M] -> [B, C / 2, M * rate]``: a transposed convolution, then the mean of the residual blocks."""

    def __init__(self, channels: int, rate: int, config: HiFiGANConfig):
        super().__init__()
        padding, odd = rate // 2 + rate % 2, rate % 2
        self.up = weight_norm(
            nn.ConvTranspose1d(channels, channels // 2, 2 * rate, rate, padding=padding, output_padding=odd)
        )
        self.blocks = nn.ModuleList(ResidualBlock(channels // 2, kernel, config.dilations) for kernel in config.kernels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.leaky_relu(x, SLOPE))
        return torch.stack([block(x) for block in self.blocks]).mean(0)


class HiFiGAN(nn.Module):
    """``states[B, M, inputs] -> wave[B, M * hop]``."""

    def __init__(self, config: HiFiGANConfig, inputs: int):
        super().__init__()
        self.first = weight_norm(nn.Conv1d(inputs, config.channels, 7, padding=3))
        self.stages = nn.ModuleList(
            Upsampling(config.channels // 2**stage, rate, config) for stage, rate in enumerate(config.rates)
        )
        self.last = weight_norm(nn.Conv1d(config.channels // 2 ** len(config.rates), 1, 7, padding=3))

    def forward(self, states: Tensor) -> Tensor:
        x = self.first(states.transpose(1, 2))
        for stage in self.stages:
            x = stage(x)
        return torch.tanh(self.last(F.leaky_relu(x, SLOPE)))[:, 0]
