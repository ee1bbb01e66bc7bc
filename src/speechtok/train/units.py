"""Units from a feature store: ``speechtok train units RECIPE.yaml [name=value ...]``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from speechtok.config import require_whole
from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.clusters import UnitsConfig, fit_centres, measure_centres, save_centres
from speechtok.guidance.naming import named
from speechtok.guidance.store import FeatureStore
from speechtok.tokenizers.units import save_units, trained_units
from speechtok.train.loop import read_command

MODEL = "model"
"""Folder of the tokenizer in that of the centres."""
MIXED = 4
"""Batches that are held and shuffled together: neighbouring frames of one utterance are nearly the same."""


@dataclass
class UnitsRecipe:
    """A k-means of a teacher's features."""

    name: str = "units"
    seed: int = 0
    features: str = ""
    """Feature store that ``speechtok features`` made."""
    clusters: int = 500
    batch: int = 10000
    """Vectors per step."""
    passes: int = 5
    """How often the vectors are gone through."""
    utterances: int = 0
    """How many utterances are used, drawn at random; 0 uses all."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "clusters", "batch", "passes")
        require_whole(self, 0, "utterances")
        if not self.features:
            raise ConfigError("features names no feature store; make one with 'speechtok features'")


def train(recipe: UnitsRecipe, folder: Path) -> UnitsConfig:
    """Fit the centres, measure them on the same utterances, and leave both in ``folder``.

    Raises:
        CheckpointError: the feature store cannot be read.
        ConfigError: it holds fewer vectors than there are clusters, or scikit-learn is missing.
        OutputError: ``folder`` cannot be written.
    """
    store = FeatureStore(recipe.features)
    centres = fit_centres(mixed_vectors(store, recipe), recipe.clusters, recipe.seed)
    figures = measure_centres(utterance_vectors(store, recipe), centres)
    teacher, layer = named(store.teacher)
    config = UnitsConfig(
        teacher, layer, recipe.clusters, store.dimension, **figures, seed=recipe.seed, weights=store.weights
    )
    save_centres(folder, centres, config)
    return config


def utterance_vectors(store: FeatureStore, recipe: UnitsRecipe, again: int = 0) -> Iterator[Tensor]:
    """Float32 ``[T', D]`` of the chosen utterances, in the order of pass ``again``."""
    chosen = np.random.default_rng(recipe.seed).permutation(len(store))[: recipe.utterances or None]
    for index in np.random.default_rng((recipe.seed, again)).permutation(chosen):
        if len(found := store[index].float()):
            yield found


def mixed_vectors(store: FeatureStore, recipe: UnitsRecipe) -> Iterator[Tensor]:
    """Batches ``[batch, D]`` (the last of a pass may be smaller) of shuffled frames of utterances in random order."""
    generator = torch.Generator().manual_seed(recipe.seed)

    def shuffled(pool: list[Tensor]) -> tuple[Tensor, ...]:
        together = torch.cat(pool)
        return together[torch.randperm(len(together), generator=generator)].split(recipe.batch)

    for again in tqdm(range(recipe.passes), unit="pass", disable=not sys.stderr.isatty()):
        pool: list[Tensor] = []
        for vectors in utterance_vectors(store, recipe, again):
            pool.append(vectors)
            if sum(map(len, pool)) >= MIXED * recipe.batch:
                *whole, rest = shuffled(pool)
                yield from whole
                pool = [rest]
        if pool:
            yield from shuffled(pool)


def main(recipe_path: str | Path, overrides: list[str], plot: bool = False) -> None:
    """``speechtok train units RECIPE.yaml [name=value ...]``; ``out=FOLDER`` names the folder of the centres, below
    which the tokenizer lies as ``model``."""
    if plot:
        raise ConfigError("train units draws no curves; leave out --plot")
    recipe, folder = read_command(UnitsRecipe, recipe_path, overrides)
    found = train(recipe, folder)
    try:
        save_units(trained_units(folder, recipe.name), folder / MODEL)
    except CheckpointError as error:  # the centres are of use all the same
        print(f"{folder / MODEL}: not written, for the teacher could not be loaded again: {error}")
    print(
        f"{folder}: {found.clusters} units of {found.described}, {found.used:.1%} in use; they explain"
        f" {found.explained:.1%} of the variance of {found.vectors} vectors"
    )
