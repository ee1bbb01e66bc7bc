"""The trainer of semantic to acoustic tokens (``nn.soundstorm``): crops of codes, masks, one loss."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechtok.chain.s2a import load_s2a, save_s2a
from speechtok.chain.saved import tokens_section
from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn.soundstorm import SoundStorm, SoundStormConfig, hide
from speechtok.tokenizers.code_vectors import code_vectors
from speechtok.train.data import Crops, WaveStore, pooled
from speechtok.train.learner import Learner, LearnerRecipe
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.pairs import codes_of
from speechtok.train.recipe import DataConfig
from speechtok.train.spoken import begin_with, codes_tokenizer, origin_of
from speechtok.train.teaching import mean_over_frames
from speechtok.train.tracks import Track


@dataclass
class S2ARecipe(LearnerRecipe):
    """A run of semantic to acoustic tokens. Speech needs no text."""

    name: str = "s2a"
    tokenizer: str = "speechtok-base"
    """Name or folder of the tokenizer; its first level is given, the others are foretold."""
    levels: int = 0
    """How many of its levels are used, the semantic one included; 0: all."""
    start: Literal["codebooks", "random"] = "codebooks"
    """Where the vectors of codes begin: at the codec's own, or anywhere. They learn."""
    begin: str = ""
    """Folder of a trained model of the same shape and tokenizer whose weights this run begins with."""
    network: SoundStormConfig = field(default_factory=SoundStormConfig)
    """``codebook_sizes`` follow from the tokenizer."""
    data: DataConfig = field(default_factory=lambda: DataConfig(seconds=5.0, batch=8, gain_db=(0.0, 0.0)))

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 0, "levels")
        self.data.require_manifests()
        if not self.tokenizer:
            raise ConfigError("tokenizer is empty; name the tokenizer whose codes are foretold")
        if any(self.data.gain_db):
            raise ConfigError("data.gain_db must be [0, 0]: codes are those of the recording as it is")


class Speech(NamedTuple):
    """A corpus as codes, and where its crops lie."""

    crops: Crops
    codes: Track
    frames: int
    """Of a crop."""

    @property
    def digest(self) -> str:
        """Of all codes, and of where utterances begin."""
        return hashlib.sha256(self.codes.rows.tobytes() + self.codes.offsets.tobytes()).hexdigest()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """All crops of a step: codes ``[B, Q, N]``, and frames of each, ``[B]``, where an utterance is shorter."""
        picks, starts = self.crops.places(step)
        rows = self.codes.batch(picks, starts, self.frames).to(torch.long).transpose(1, 2)
        lengths = np.diff(self.codes.offsets)[picks] - starts // self.codes.hop
        return rows, torch.from_numpy(np.minimum(lengths, self.frames))


class S2ALearner(Learner):
    """A run of semantic to acoustic tokens: state, step, validate, export; the loop is ``train.loop``."""

    model: SoundStorm

    def __init__(self, recipe: S2ARecipe):
        torch.manual_seed(recipe.seed)
        self.tokenizer = codes_tokenizer(recipe.tokenizer)
        levels = self.tokenizer.checked_levels(recipe.levels or None)
        recipe.network.codebook_sizes = tuple(self.tokenizer.codebook_sizes[:levels])
        recipe.network.__post_init__()  # one level is none too few only now
        model = SoundStorm(recipe.network)
        if recipe.begin:
            trained, header = load_s2a(recipe.begin)
            begin_with(model, trained, header, recipe.begin, self.tokenizer)
        elif recipe.start == "codebooks":
            model.begin_with(code_vectors(self.tokenizer, model.levels))
        super().__init__(recipe, model, {"s2a/level": 1.0})
        self.recipe: S2ARecipe = recipe
        self.share = self.devices.share_of(recipe.data.batch)
        with self.devices.main_first():
            self.speech = self.speech_of(recipe.data.manifests, "train", recipe.seed)
            self.held_out = self.speech_of(recipe.data.validation or recipe.data.manifests, "dev", 0)
        self.corpus = self.speech.digest + origin_of(recipe.begin)

    def speech_of(self, manifests: list[str], split: str, seed: int) -> Speech:
        """Codes and crops of a split."""
        data, tokenizer = self.recipe.data, self.tokenizer
        utterances = pooled(manifests, split)
        codes = codes_of(tokenizer, utterances, self.model.levels, data.cache)
        store = WaveStore.build(utterances, tokenizer.sample_rate, data.cache)
        frames = max(2, round(data.seconds * tokenizer.frame_rate))
        crops = Crops(store, frames * tokenizer.hop, data.batch, seed, grid=tokenizer.hop)
        return Speech(crops, codes, frames)

    def losses(self) -> dict[str, Tensor]:
        """Cross-entropy of what is hidden of this process's share of the step's crops."""
        codes, lengths = self.speech.batch(self.step)
        hidden = hide(lengths, codes.shape[2], self.model.levels, torch.Generator().manual_seed(self.noise_seed))
        mine = [part[self.share] for part in hidden]
        loss, hits = self.model.score(
            codes[self.share].to(self.devices.device), lengths[self.share], type(hidden)(*mine)
        )
        mean = partial(mean_over_frames, devices=self.devices)
        return {"s2a/level": mean(loss), "accuracy/codes": mean(hits)}

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Loss and accuracy of every level on held-out crops, all hidden alike each time, by the averaged model."""
        steps = -(-self.recipe.data.validation_files // self.recipe.data.batch)
        found: dict[str, list[Tensor]] = {}
        for step in range(steps):
            codes, lengths = self.held_out.batch(step)
            for level in range(1, self.model.levels):
                draws = torch.Generator().manual_seed(step * self.model.levels + level)
                hidden = hide(lengths, codes.shape[2], self.model.levels, draws, level)
                with self.devices.autocast():
                    loss, hits = self.average.score(codes.to(self.devices.device), lengths, hidden)
                found.setdefault("s2a/level", []).append(loss)
                found.setdefault(f"s2a/level-{level + 1}", []).append(loss)
                found.setdefault(f"accuracy/level-{level + 1}", []).append(hits)
        return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}, []

    def export(self, folder: Path) -> None:
        """The averaged model as a folder that ``chain.s2a.load_s2a`` reads."""
        hours = round(float(self.speech.crops.store.lengths.sum()) / self.tokenizer.sample_rate / 3600, 2)
        card = {"steps": self.step, "seed": self.recipe.seed, "hours": hours}
        save_s2a(self.average, folder, tokens_section(self.tokenizer), card)


def train(recipe: S2ARecipe, folder: Path, stop_at: int | None = None) -> S2ALearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        CheckpointError: tokenizer or ``recipe.begin`` cannot be loaded.
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = S2ALearner(recipe)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, S2ARecipe, train)
