"""The trainer of text to semantic tokens (``chain.t2s``): whole utterances, prefixes of their speakers, one loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechtok.chain.saved import tokens_section
from speechtok.chain.t2s import (
    T2SConfig,
    TextToSemantic,
    Utterances,
    load_t2s,
    save_t2s,
)
from speechtok.errors import ConfigError
from speechtok.train.batches import Batches, in_order
from speechtok.train.devices import Devices
from speechtok.train.learner import Learner, LearnerRecipe
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.pairs import Pairs
from speechtok.train.spoken import (
    PrefixConfig,
    Prefixes,
    SpokenConfig,
    begin_with,
    codes_tokenizer,
    origin_of,
    prefix_draws,
    vocabulary_of,
)
from speechtok.train.teaching import mean_over_frames


@dataclass
class T2SRecipe(LearnerRecipe):
    """A run of text to semantic tokens."""

    name: str = "t2s"
    tokenizer: str = "speechtok-base"
    """Name or folder of the tokenizer whose first level is spoken."""
    vocabulary: str = ""
    """A ``text.json``, or the folder of a trained recogniser or speaker that has one; empty: learned from the texts."""
    vocabulary_size: int = 500
    """Symbols of a vocabulary that is learned."""
    begin: str = ""
    """Folder of a trained model of the same vocabulary and tokenizer whose weights this run begins with."""
    network: T2SConfig = field(default_factory=T2SConfig)
    """``text`` and ``semantic`` follow from vocabulary and tokenizer."""
    prefix: PrefixConfig = field(default_factory=PrefixConfig)
    data: SpokenConfig = field(default_factory=SpokenConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data.manifests:
            raise ConfigError("data.manifests is empty; name at least one manifest (path, split, text, speaker)")
        if not self.tokenizer:
            raise ConfigError("tokenizer is empty; name the tokenizer whose codes are spoken")


class T2SLearner(Learner):
    """A run of text to semantic tokens: state, step, validate, export; the loop is ``train.loop``."""

    model: TextToSemantic

    def __init__(self, recipe: T2SRecipe):
        torch.manual_seed(recipe.seed)
        self.tokenizer = codes_tokenizer(recipe.tokenizer)
        self.vocabulary = vocabulary_of(recipe.vocabulary, recipe.data.manifests, recipe.vocabulary_size)
        recipe.network.text, recipe.network.semantic = self.vocabulary.size, self.tokenizer.codebook_sizes[0]
        model = TextToSemantic(recipe.network)
        if recipe.begin:
            trained, _, header = load_t2s(recipe.begin)
            begin_with(model, trained, header, recipe.begin, self.tokenizer, self.vocabulary)
        super().__init__(recipe, model, {"t2s/semantic": 1.0})
        self.recipe: T2SRecipe = recipe
        data = recipe.data
        with self.devices.main_first():
            self.pairs = self.pairs_of(data.manifests, "train", data.limit)
            self.held_out = self.pairs_of(data.validation or data.manifests, "dev", data.validation_files)
        self.corpus = self.pairs.digest + origin_of(recipe.begin)
        self.batches = Batches(self.pairs.lengths, data.batch, recipe.seed)
        self.prefixes, self.held_out_prefixes = map(self.prefixes_of, (self.pairs, self.held_out))

    def pairs_of(self, manifests: list[str], split: str, limit: int) -> Pairs:
        """Semantic codes and text of a split."""
        options = self.recipe.data.pairing(split) | {"limit": limit, "tell": self.devices.main}
        return Pairs.build(manifests, split, self.tokenizer, self.vocabulary, **options)

    def prefixes_of(self, pairs: Pairs) -> Prefixes:
        """Of a corpus, as the recipe has them."""
        return Prefixes.of(pairs, self.recipe.prefix)

    def losses(self) -> dict[str, Tensor]:
        """Cross-entropy of this process's share of the step's utterances."""
        picks = self.batches.share_of(self.step, self.devices)
        draws = prefix_draws(picks, self.recipe.seed, self.step)
        batch = batch_of(self.pairs, self.prefixes, picks, draws).to(self.devices.device)
        return self.model.losses(batch, partial(mean_over_frames, devices=self.devices))

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Of the averaged model, see ``figures``."""
        size = self.recipe.data.batch
        return figures(self.average, self.held_out, self.held_out_prefixes, size, self.devices), []

    def export(self, folder: Path) -> None:
        """The averaged model as a folder that ``chain.t2s.load_t2s`` reads."""
        card = {"steps": self.step, "seed": self.recipe.seed, "hours": round(self.pairs.seconds / 3600, 2)}
        save_t2s(self.average, self.vocabulary, folder, tokens_section(self.tokenizer), card)


def batch_of(pairs: Pairs, prefixes: Prefixes, picks: np.ndarray, draws: Sequence[np.ndarray]) -> Utterances:
    """Utterances ``picks[B]`` with the prefixes that four draws each give them."""
    parts: tuple[list, list, list, list] = ([], [], [], [])
    for pick, own in zip(picks.tolist(), draws, strict=True):
        source, start, length = prefixes(pick, own)
        whole = pairs.codes[pick][0]
        row = (
            pairs.text[pick],
            pairs.codes[source][0, start : start + length],
            whole if source != pick else whole[length:],
            source != pick,
        )
        for part, one in zip(parts, row, strict=True):
            part.append(one)
    return Utterances.of(*parts)


def figures(model: TextToSemantic, pairs: Pairs, prefixes: Prefixes, batch: int, devices: Devices) -> dict[str, float]:
    """Loss and accuracies on held-out utterances, by targets; their prefixes are the same each time.

    ``text/gain`` is how much larger the loss is with the text of another utterance of like length, in nats per target:
    around 0 the model goes on as the voice did, and does not read.
    """
    scores, others = [], []
    for picks in in_order(pairs.lengths, batch):
        utterances = batch_of(pairs, prefixes, picks, prefix_draws(picks)).to(devices.device)
        moved = {name: getattr(utterances, name).roll(1, 0) for name in ("text", "text_lengths")}
        with devices.autocast():
            scores.append(model.score(utterances))
            if len(picks) > 1:  # one alone has no other text
                others.append(model.score(utterances._replace(**moved)).loss - scores[-1].loss)
    names = ("t2s/semantic", "accuracy/top-1", "accuracy/top-10")
    found = {name: float(torch.cat(part).mean()) for name, part in zip(names, zip(*scores, strict=True), strict=True)}
    return found | ({"text/gain": float(torch.cat(others).mean())} if others else {})


def train(recipe: T2SRecipe, folder: Path, stop_at: int | None = None) -> T2SLearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        CheckpointError: tokenizer, vocabulary or ``recipe.begin`` cannot be loaded.
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = T2SLearner(recipe)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, T2SRecipe, train)
