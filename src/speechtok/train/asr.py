"""The trainer of the token recogniser (``chain.recogniser``): whole utterances, CTC and attention together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from speechtok.chain.decoding import attention_greedy, best_paths
from speechtok.chain.recogniser import (
    Recogniser,
    RecogniserConfig,
    average,
    load_recogniser,
    save_recogniser,
)
from speechtok.chain.saved import tokens_section
from speechtok.chain.text import TextVocabulary
from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.code_vectors import code_vectors
from speechtok.train.batches import Batches, in_order
from speechtok.train.best import Best
from speechtok.train.devices import Devices
from speechtok.train.learner import Learner, LearnerRecipe
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.pairs import Pairs
from speechtok.train.spoken import SpokenConfig, begin_with, codes_tokenizer, origin_of, vocabulary_of
from speechtok.train.teaching import mean_over_frames


@dataclass
class AsrRecipe(LearnerRecipe):
    """A run of a token recogniser."""

    name: str = "asr"
    tokenizer: str = "speechtok-base"
    """Name or folder of the tokenizer whose codes are heard."""
    levels: int = 1
    """The first so many levels of its codes; the first one alone is the semantic one of the chain."""
    vocabulary: str = ""
    """A ``text.json``, or the folder of a trained recogniser or speaker that has one; empty: learned from the texts."""
    vocabulary_size: int = 500
    """Symbols of a vocabulary that is learned."""
    start: Literal["random", "codebooks"] = "random"
    """Where the tables of codes begin: anywhere, or at the tokenizer's own code vectors. They learn."""
    begin: str = ""
    """Folder of a trained model of the same vocabulary and tokenizer whose weights this run begins with."""
    keep: Literal["best", "last"] = "best"
    """Which weights are exported: those with the lowest character error on the held-out part, or the last ones."""
    judged: Literal["ctc", "attention"] = "attention"
    """Whose error decides what is best: that of CTC's best path, or of the decoder's greedy texts."""
    network: RecogniserConfig = field(default_factory=RecogniserConfig)
    """``symbols`` and ``sizes`` follow from vocabulary and tokenizer."""
    data: SpokenConfig = field(default_factory=SpokenConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_whole(self, 1, "levels")
        if not self.data.manifests:
            raise ConfigError("data.manifests is empty; name at least one manifest (path, split, text, speaker)")
        if not self.tokenizer:
            raise ConfigError("tokenizer is empty; name the tokenizer whose codes are heard")


class Batch(NamedTuple):
    """Utterances side by side, see ``Recogniser.losses``."""

    codes: Tensor
    lengths: Tensor
    text: Tensor
    text_lengths: Tensor


class AsrLearner(Learner):
    """A run of a token recogniser: state, step, validate, export; the loop is ``train.loop``."""

    model: Recogniser

    def __init__(self, recipe: AsrRecipe):
        torch.manual_seed(recipe.seed)
        self.tokenizer = codes_tokenizer(recipe.tokenizer)
        self.vocabulary = vocabulary_of(recipe.vocabulary, recipe.data.manifests, recipe.vocabulary_size)
        model = recogniser_of(recipe, self.tokenizer, self.vocabulary)
        super().__init__(recipe, model, recipe.network.weights)
        self.recipe: AsrRecipe = recipe
        data = recipe.data
        with self.devices.main_first():
            self.pairs = self.pairs_of(data.manifests, "train", data.limit)
            self.held_out = self.pairs_of(data.validation or data.manifests, "dev", data.validation_files)
        self.corpus = self.pairs.digest + origin_of(recipe.begin)
        self.batches = Batches(self.pairs.lengths, data.batch, recipe.seed)
        self.best = Best(self.average)

    @property
    def parts(self) -> dict[str, Any]:
        """See ``Learner``."""
        return super().parts | {"best": self.best}

    def pairs_of(self, manifests: list[str], split: str, limit: int) -> Pairs:
        """Codes and text of a split."""
        options = self.recipe.data.pairing(split) | {"limit": limit, "tell": self.devices.main}
        return Pairs.build(manifests, split, self.tokenizer, self.vocabulary, levels=self.recipe.levels, **options)

    def losses(self) -> dict[str, Tensor]:
        """Of this process's share of the step's utterances."""
        batch = batch_of(self.pairs, self.batches.share_of(self.step, self.devices), self.devices.device)
        return self.model.losses(*batch, partial(mean_over_frames, devices=self.devices))

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Of the averaged model, see ``figures``."""
        found = figures(self.average, self.held_out, self.recipe.data.batch, self.devices)
        if counted:
            self.best.see(found[f"cer/{self.recipe.judged}"], self.average)
        return found, []

    def export(self, folder: Path) -> None:
        """The model that is kept as a folder that ``chain.recogniser.load_recogniser`` reads."""
        best = self.recipe.keep == "best" and self.best.error is not None
        card = {"steps": self.step, "seed": self.recipe.seed, "hours": round(self.pairs.seconds / 3600, 2)}
        if best:
            card["dev_cer"] = round(self.best.error, 4)
        tokens = tokens_section(self.tokenizer)
        save_recogniser(self.best.model if best else self.average, self.vocabulary, folder, tokens, card)


def batch_of(pairs: Pairs, picks: Sequence[int] | np.ndarray, device: torch.device | str = "cpu") -> Batch:
    """Utterances ``picks[B]``, padded to the longest; lengths stay on the CPU."""
    codes = [torch.from_numpy(pairs.codes[pick].T) for pick in picks]
    text = [torch.from_numpy(pairs.text[pick]) for pick in picks]
    return Batch(
        pad_sequence(codes, batch_first=True).mT.to(device),
        torch.tensor([*map(len, codes)]),
        pad_sequence(text, batch_first=True, padding_value=TextVocabulary.pad).to(device),
        torch.tensor([*map(len, text)]),
    )


def figures(model: Recogniser, held_out: Pairs, batch: int, devices: Devices) -> dict[str, float]:
    """Losses on held-out utterances, and error rates of the two greedy texts.

    ``cer`` and ``wer`` are edits over all characters (spaces among them) and words of the plain form.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    edits: dict[str, list[tuple[int, ...]]] = {"ctc": [], "attention": []}
    for picks in in_order(held_out.lengths, batch):
        part = batch_of(held_out, picks, devices.device)
        with devices.autocast():
            heard = model.hear(part.codes, part.lengths)
            rows = model.spell(heard, part.text)
            # every value and not their means: batches have unequal numbers of symbols
            each = model.losses_of(heard, rows, part.text, part.text_lengths, mean=lambda one: one)
            texts = {
                "ctc": best_paths(model.ctc_logits(heard), heard.lengths),
                "attention": attention_greedy(model, heard),
            }
        for name, one in each.items():
            values[name].append(one)
        for name, written in texts.items():
            said = [held_out.texts[pick] for pick in picks]
            heard_texts = map(held_out.vocabulary.decode, written)
            edits[name] += [edits_of(*pair) for pair in zip(said, heard_texts, strict=True)]
    found = {name: float(average(torch.cat(parts))) for name, parts in values.items()}
    for name, counts in edits.items():
        wrong, characters, wrong_words, words = np.sum(counts, axis=0).tolist()
        found |= {f"cer/{name}": wrong / characters, f"wer/{name}": wrong_words / words}
    return found


def edits_of(said: str, heard: str) -> tuple[int, int, int, int]:
    """Wrong characters, characters, wrong words and words, of and in what was said."""
    from rapidfuzz.distance import Levenshtein

    words = said.split()
    return Levenshtein.distance(said, heard), len(said), Levenshtein.distance(words, heard.split()), len(words)


def recogniser_of(recipe: AsrRecipe, tokenizer: Tokenizer, vocabulary: TextVocabulary) -> Recogniser:
    """The recipe's network, whose sizes are filled in, as it begins.

    Raises:
        CheckpointError: ``recipe.begin`` cannot be read, or was trained on other codes.
        ConfigError: the tokenizer has fewer levels or shows no code vectors, or ``begin`` has another shape.
    """
    network = recipe.network
    network.symbols = vocabulary.size
    network.sizes = tokenizer.codebook_sizes[: tokenizer.checked_levels(recipe.levels)]
    vectors = code_vectors(tokenizer, recipe.levels) if recipe.start == "codebooks" else None
    if vectors is not None:
        network.table = vectors[0].shape[1]
    model = Recogniser(network)
    if vectors is not None:
        model.begin_with(vectors)
    if recipe.begin:
        trained, _, header = load_recogniser(recipe.begin)
        begin_with(model, trained, header, recipe.begin, tokenizer, vocabulary)
    return model


def train(recipe: AsrRecipe, folder: Path, stop_at: int | None = None) -> AsrLearner:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds, and export the model there.

    Raises:
        CheckpointError: tokenizer, vocabulary or ``recipe.begin`` cannot be loaded.
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = AsrLearner(recipe)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, AsrRecipe, train)
