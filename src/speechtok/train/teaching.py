"""What the trainings of teachers share: speech, network, and crops that know how much of them is speech."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.guidance.frames import FrameLaw
from speechtok.nn import hubert
from speechtok.nn.hubert import HubertShape
from speechtok.train.data import Crops, WaveStore, evenly, pooled
from speechtok.train.devices import Devices
from speechtok.train.learner import LearnerRecipe
from speechtok.train.recipe import DataConfig

UNKNOWN = -100
"""Label of a frame that has none, which cross-entropy passes over."""
HOP = 320
"""Samples from one frame of a teacher to the next; crops begin on multiples of it, so that labels fit exactly."""

FIT_UTTERANCES = 200
"""Utterances whose log-mel levels give the front end its mean and deviation."""


@dataclass
class TeacherRecipe(LearnerRecipe):
    """A run that trains a network of HuBERT's kind."""

    data: DataConfig = field(default_factory=lambda: DataConfig(seconds=6.0, batch=12))
    network: HubertShape = field(default_factory=HubertShape)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.data.require_manifests()
        if self.samples < 10 * HOP:
            raise ConfigError(f"data.seconds={self.data.seconds} is too short; give at least 0.2")

    @property
    def samples(self) -> int:
        """Length of a crop in samples, a whole number of frames."""
        return round(self.data.seconds * hubert.RATE / HOP) * HOP


@dataclass(frozen=True)
class Batch:
    """Crops of one step."""

    wave: Tensor
    """``[B, T]``, zero where an utterance was shorter."""
    picks: np.ndarray
    """Utterances, ``[B]``."""
    starts: np.ndarray
    """First samples, ``[B]``."""
    lengths: np.ndarray
    """Samples that are speech, ``[B]``."""

    def frames(self, law: FrameLaw) -> np.ndarray:
        """Frames that are speech, ``[B]``."""
        return np.array([law.frames(int(length)) for length in self.lengths])

    def valid(self, law: FrameLaw) -> Tensor | None:
        """``[B, N]``, False in padding; None where there is none."""
        counts, frames = self.frames(law), law.frames(self.wave.shape[1])
        if (counts == frames).all():
            return None
        return torch.from_numpy(np.arange(frames) < counts[:, None]).to(self.wave.device)


def batch_of(crops: Crops, step: int, devices: Devices, alone: bool = False) -> Batch:
    """This process's share of a step's crops on its device; the whole of them where it works ``alone``."""
    share = (0, 1) if alone else (devices.process, devices.processes)
    picks, starts = crops.places(step, *share)
    lengths = np.minimum(crops.store.lengths[picks] - starts, crops.samples)
    return Batch(torch.from_numpy(crops(step, *share)).to(devices.device), picks, starts, lengths)


def mean_over_frames(values: Tensor, devices: Devices | None = None) -> Tensor:
    """Mean of ``values[M]``; with ``devices``, such that the mean over processes is that over all their frames.

    Every process must call it then, as often as the others. No frames at all make 0.
    """
    count = values.new_tensor(float(len(values)))
    return values.sum() / (count if devices is None else devices.mean(count)).clamp_min(1e-6)


def stores_of(data: DataConfig, devices: Devices) -> tuple[WaveStore, WaveStore]:
    """Training and held-out utterances, read by one process first.

    Raises:
        ConfigError: the batch cannot be shared evenly, or a manifest is not as it should be.
    """
    devices.share_of(data.batch)
    with devices.main_first():
        train = WaveStore.build(pooled(data.manifests, "train"), hubert.RATE, data.cache)
        held_out = WaveStore.build(pooled(data.validation or data.manifests, "dev"), hubert.RATE, data.cache)
    return train, held_out


def fit_front_end(network: Any, speech: WaveStore) -> None:
    """Give a log-mel front end the mean and deviation of utterances spread over the corpus."""
    if network.config.front_end == hubert.LOG_MEL:
        picks = evenly(len(speech), FIT_UTTERANCES)
        device = next(network.parameters()).device
        waves = [torch.from_numpy(speech[i]).to(device) for i in picks if len(speech[i]) >= HOP]
        hubert.body(network).feature_extractor.fit(waves)


def held_out_crops(recipe: TeacherRecipe, store: WaveStore, odds: np.ndarray | None = None) -> Crops:
    """Crops for validation, the same in every one; ``validation_batches`` of them are used."""
    size = min(recipe.data.batch, recipe.data.validation_files)
    return Crops(store, recipe.samples, size, seed=0, odds=odds, grid=HOP)


def validation_batches(recipe: TeacherRecipe) -> range:
    """Steps of ``held_out_crops`` that make up at least ``data.validation_files`` crops."""
    return range(-(-recipe.data.validation_files // min(recipe.data.batch, recipe.data.validation_files)))
