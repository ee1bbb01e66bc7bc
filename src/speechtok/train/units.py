"""Units from a feature store: ``speechtok train units RECIPE.yaml [name=value ...]``."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from speechtok.config import require_whole
from speechtok.errors import CheckpointError, ConfigError
from speechtok.files import make_folder
from speechtok.guidance.clusters import CentreFit, UnitsConfig, checked_vectors, measure_centres, save_centres
from speechtok.guidance.naming import named
from speechtok.guidance.store import FeatureStore
from speechtok.tokenizers.units import save_units, trained_units
from speechtok.train.loop import CHECKPOINT, read_command
from speechtok.train.snapshot import load_snapshot, save_snapshot

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
    checkpoint_every: int = 100
    """Batches between two checkpoints, from which a stopped fit goes on."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "clusters", "batch", "passes", "checkpoint_every")
        require_whole(self, 0, "utterances")
        if not self.features:
            raise ConfigError("features names no feature store; make one with 'speechtok features'")


def train(recipe: UnitsRecipe, folder: Path) -> UnitsConfig:
    """Fit the centres, measure them on the same utterances, and leave both in ``folder``.

    A fit that was stopped goes on from its last checkpoint there, and comes to the same centres.

    Raises:
        CheckpointError: the feature store or the checkpoint cannot be read.
        ConfigError: the store holds fewer vectors than there are clusters, ``folder`` holds an unfinished fit of other
            settings or features, or scikit-learn is missing.
        OutputError: ``folder`` cannot be written.
    """
    store = FeatureStore(recipe.features)
    centres = fitted(store, recipe, folder / CHECKPOINT)
    figures = measure_centres(utterance_vectors(store, recipe), centres)
    teacher, layer = named(store.teacher)
    config = UnitsConfig(
        teacher, layer, recipe.clusters, store.dimension, **figures, seed=recipe.seed, weights=store.weights
    )
    save_centres(folder, centres, config)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return config


def fitted(store: FeatureStore, recipe: UnitsRecipe, checkpoint: Path) -> Tensor:
    """The centres ``[K, D]``; every now and then what is known of them is left in ``checkpoint``, and found again."""
    fit, settings = CentreFit(recipe.clusters, recipe.seed), settings_of(store, recipe)
    if checkpoint.exists():
        state = load_snapshot(checkpoint)
        if state["settings"] != settings:
            raise ConfigError(
                f"{checkpoint}: an unfinished fit of other settings or features; go on with those, give another out=,"
                " or delete it"
            )
        fit.load_state_dict(state["fit"])
    done = fit.batches
    # a stream has no places to go to: what was fitted before is read again and passed over
    for vectors in islice(checked_vectors(mixed_vectors(store, recipe)), done, None):
        fit.feed(vectors)
        if fit.started and fit.batches % recipe.checkpoint_every == 0:
            make_folder(checkpoint.parent)
            save_snapshot(checkpoint, {"settings": settings, "fit": fit.state_dict()})
    return fit.centres()


def settings_of(store: FeatureStore, recipe: UnitsRecipe) -> str:
    """All that decides the centres, as JSON; the store may lie elsewhere and its teacher's name say anything."""
    lengths = hashlib.sha256(store.samples.numpy().tobytes()).hexdigest()
    free = dict.fromkeys(("name", "features", "checkpoint_every"))
    about = {"features": [store.weights or store.teacher, lengths], "scikit-learn": version("scikit-learn")}
    return json.dumps(asdict(recipe) | free | about, sort_keys=True)


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
