"""The guides of a codec recipe, with the speech that they are held to."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from speechtok.guidance.build import build_guides
from speechtok.train.data import Crops, WaveStore, pooled
from speechtok.train.devices import Devices
from speechtok.train.recipe import CodecRecipe


def guides_of(recipe: CodecRecipe, crops: Crops, devices: Devices) -> list[nn.Module]:
    """What ``recipe.guides`` asks for; the same initial weights in every process.

    Raises:
        CheckpointError: a teacher, feature store or folder of centres that cannot be loaded.
        ConfigError: these do not fit the codec, each other or the training speech.
    """
    data = recipe.data

    def lengths(rate: int) -> np.ndarray:
        return WaveStore.build(pooled(data.manifests, "train"), rate, data.cache).lengths

    def names() -> list[str]:
        return [utterance.speaker for utterance in pooled(data.manifests, "train")]

    places = partial(crops.places, process=devices.process, processes=devices.processes)
    torch.manual_seed(recipe.seed)
    with devices.main_first():  # which then fetches the teachers for all
        return build_guides(recipe.guides, recipe.codec, places, lengths, names)
