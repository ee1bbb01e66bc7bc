"""All discriminators of a run as one flat list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from speechtok.nn.discriminators.base import Judgement
from speechtok.nn.discriminators.stft import (
    BandDiscriminator,
    BandDiscriminatorConfig,
    STFTDiscriminator,
    STFTDiscriminatorConfig,
)
from speechtok.nn.discriminators.waveform import (
    PeriodDiscriminator,
    PeriodDiscriminatorConfig,
    ScaleDiscriminator,
    ScaleDiscriminatorConfig,
)

PEAK = 0.8


@dataclass
class JudgesConfig:
    """Which discriminators there are; each family is empty or a list of sub-discriminators."""

    stft: STFTDiscriminatorConfig = field(default_factory=STFTDiscriminatorConfig)
    period: PeriodDiscriminatorConfig = field(default_factory=PeriodDiscriminatorConfig)
    scale: ScaleDiscriminatorConfig = field(default_factory=ScaleDiscriminatorConfig)
    band: BandDiscriminatorConfig = field(default_factory=BandDiscriminatorConfig)
    level: bool = False
    """Take the mean from every signal and scale it to a peak of 0.8 before it is judged, as DAC does."""

    @property
    def count(self) -> int:
        """Number of sub-discriminators."""
        return len(self.stft.windows) + len(self.period.periods) + self.scale.scales + len(self.band.windows)


class Judges(nn.Module):
    """The sub-discriminators of ``config`` in the order STFT, period, scale, band."""

    def __init__(self, config: JudgesConfig):
        super().__init__()
        self.level = config.level
        self.members = nn.ModuleList(
            [
                *(STFTDiscriminator(config.stft.filters, w, config.stft.official) for w in config.stft.windows),
                *(PeriodDiscriminator(period, config.period.width) for period in config.period.periods),
                *(ScaleDiscriminator(halvings, config.scale.width) for halvings in range(config.scale.scales)),
                *(BandDiscriminator(config.band.filters, window) for window in config.band.windows),
            ]
        )

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, wave: Tensor, chosen: Sequence[int] | None = None) -> list[Judgement]:
        """Judge ``wave[B, T]`` with every sub-discriminator, or with those named by index."""
        if self.level:
            wave = wave - wave.mean(1, keepdim=True)
            wave = PEAK * wave / (wave.abs().amax(1, keepdim=True) + 1e-9)
        return [self.members[i](wave) for i in (range(len(self)) if chosen is None else chosen)]
