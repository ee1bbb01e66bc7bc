"""Discriminators that see samples: by period and by scale (HiFi-GAN section 2.3; SpeechTokenizer section 3.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from speechtok.nn.discriminators.base import Judgement, climb, scaled

PERIOD_CHANNELS = (32, 128, 512, 1024, 1024)
SCALE_LAYERS = (  # channels out, kernel, stride, groups
    (128, 15, 1, 1),
    (128, 41, 2, 4),
    (256, 41, 2, 16),
    (512, 41, 4, 16),
    (1024, 41, 4, 16),
    (1024, 41, 1, 16),
    (1024, 5, 1, 1),
)
SLOPE = 0.1


@dataclass
class PeriodDiscriminatorConfig:
    """Multi-period discriminator; HiFi-GAN and SpeechTokenizer use the periods 2, 3, 5, 7, 11."""

    periods: tuple[int, ...] = ()
    """One sub-discriminator per period, in samples; empty means none."""
    width: float = 1.0
    """Factor on the channels 32, 128, 512, 1024, 1024."""


@dataclass
class ScaleDiscriminatorConfig:
    """Multi-scale discriminator; HiFi-GAN and SpeechTokenizer use three scales."""

    scales: int = 0
    """Number of sub-discriminators: the samples themselves, then every time at half the rate; 0 means none."""
    width: float = 1.0
    """Factor on the channels 128, 128, 256, 512, 1024, 1024, 1024."""


class PeriodDiscriminator(nn.Module):
    """Convolutions along the columns of the signal folded to rows of ``period`` samples."""

    def __init__(self, period: int, width: float):
        super().__init__()
        self.period = period
        channels = [1, *(scaled(c, width) for c in PERIOD_CHANNELS)]
        strides = (3, 3, 3, 3, 1)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(channels[i], channels[i + 1], (5, 1), (stride, 1), (2, 0)))
            for i, stride in enumerate(strides)
        )
        self.score = weight_norm(nn.Conv2d(channels[-1], 1, (3, 1), 1, (1, 0)))

    def forward(self, wave: Tensor) -> Judgement:
        """Judge ``wave[B, T]``; the end is reflected to a whole number of periods."""
        x = F.pad(wave.unsqueeze(1), (0, -wave.shape[1] % self.period), mode="reflect")
        x, features = climb(self.layers, x.unflatten(2, (-1, self.period)), SLOPE)
        score = self.score(x)
        return score, [*features, score]


class ScaleDiscriminator(nn.Module):
    """Grouped strided convolutions over the signal at ``1 / 2 ** halvings`` of its rate."""

    def __init__(self, halvings: int, width: float):
        super().__init__()
        self.halvings = halvings
        norm = spectral_norm if halvings == 0 else weight_norm  # the official choice for the raw signal
        layers, inputs = [], 1
        for channels, kernel, stride, most in SCALE_LAYERS:
            outputs = scaled(channels, width)
            groups = math.gcd(math.gcd(inputs, outputs), most)  # narrow versions have fewer groups
            layers.append(norm(nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)))
            inputs = outputs
        self.layers = nn.ModuleList(layers)
        self.score = norm(nn.Conv1d(inputs, 1, 3, 1, 1))

    def forward(self, wave: Tensor) -> Judgement:
        """Judge ``wave[B, T]``."""
        x = wave.unsqueeze(1)
        for _ in range(self.halvings):
            x = F.avg_pool1d(x, 4, 2, 2)
        x, features = climb(self.layers, x, SLOPE)
        score = self.score(x)
        return score, [*features, score]
