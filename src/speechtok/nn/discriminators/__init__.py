"""Discriminators: each gives a score map and the list of its inner feature maps; :class:`Judges` holds a choice."""

from speechtok.nn.discriminators.base import Judgement
from speechtok.nn.discriminators.judges import Judges, JudgesConfig
from speechtok.nn.discriminators.stft import BandDiscriminatorConfig, STFTDiscriminatorConfig
from speechtok.nn.discriminators.waveform import PeriodDiscriminatorConfig, ScaleDiscriminatorConfig

__all__ = [
    "BandDiscriminatorConfig",
    "Judgement",
    "Judges",
    "JudgesConfig",
    "PeriodDiscriminatorConfig",
    "STFTDiscriminatorConfig",
    "ScaleDiscriminatorConfig",
]
