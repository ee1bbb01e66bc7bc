"""The trainer of the closed chain (``chain.closed``): recogniser and speaker together, epoch by epoch.

Source: TokenChain (arXiv 2510.06201): both were trained alone before; the losses are balanced anew after each epoch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from speechtok.chain.balance import DynamicWeights, UncertaintyWeights
from speechtok.chain.closed import CHAIN, Chain
from speechtok.chain.interface import ESTIMATORS
from speechtok.chain.recogniser import load_recogniser, save_recogniser
from speechtok.chain.saved import require_tokens, tokens_section
from speechtok.chain.t2s import load_t2s, save_t2s
from speechtok.chain.text import TextVocabulary
from speechtok.errors import ConfigError
from speechtok.tokenizers.base import Tokenizer
from speechtok.train import asr, t2s
from speechtok.train.batches import Batches
from speechtok.train.best import Best
from speechtok.train.chain_recipe import BalanceConfig, ChainRecipe
from speechtok.train.learner import Learner
from speechtok.train.loop import prepare, run, run_command
from speechtok.train.pairs import Pairs
from speechtok.train.spoken import Prefixes, codes_tokenizer, origin_of, prefix_draws
from speechtok.train.teaching import mean_over_frames
from speechtok.train.unpaired import DRAWS, Unpaired

ASR, SPEAKER = "asr", "t2s/semantic"
"""The task of the recogniser's losses together, and the speaker's loss on the true texts."""
UNCERTAINTY = "balance/uncertainty"
REPLAY = 7
"""Marks the draws of the replayed utterances."""


class Balance:
    """Weights of all losses in a run's sum.

    Args:
        parts: the recogniser's losses, by their shares in it.
    """

    def __init__(self, config: BalanceConfig, parts: dict[str, float], others: dict[str, float], loop: bool):
        self.config, self.parts, self.others, self.loop = config, parts, others, loop
        self.dynamic = DynamicWeights((ASR, CHAIN), config.temperature)

    @property
    def tasks(self) -> dict[str, float]:
        """What recogniser and loop count in this epoch; both 1 where a learned balance weighs them."""
        if not self.loop:
            return {ASR: 1.0}
        if self.config.kind == "fixed":
            return {ASR: self.config.asr, CHAIN: self.config.chain}
        if self.config.kind == "uncertainty":
            return {ASR: 1.0, CHAIN: 1.0}
        return self.dynamic.weights

    @property
    def weights(self) -> dict[str, float]:
        """Of every loss that is summed."""
        if self.loop and self.config.kind == "uncertainty":
            return {UNCERTAINTY: 1.0} | self.others
        tasks = self.tasks
        own = {name: tasks[ASR] * share for name, share in self.parts.items()}
        return own | {name: weight for name, weight in tasks.items() if name != ASR} | self.others

    def observe(self, values: dict[str, float]) -> None:
        """Take in the losses of a step."""
        self.dynamic.observe({ASR: self.together(values), CHAIN: values[CHAIN]})

    def together(self, losses: dict[str, Any]) -> Any:
        """The recogniser's losses as one."""
        return sum(share * losses[name] for name, share in self.parts.items())

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return self.dynamic.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.dynamic.load_state_dict(state)


class ChainLearner(Learner):
    """A run of the chain: state, step, validate, export; the loop is ``train.loop``."""

    model: Chain

    def __init__(self, recipe: ChainRecipe):
        torch.manual_seed(recipe.seed)
        self.tokenizer = codes_tokenizer(recipe.tokenizer)
        model, self.vocabulary = chain_of(recipe, self.tokenizer)
        super().__init__(recipe, model, {})  # the balance gives the weights of every step
        self.recipe: ChainRecipe = recipe
        with self.devices.main_first():
            self.open_data()
        parts, others = model.asr.config.weights, {SPEAKER: recipe.gold} if recipe.gold else {}
        self.balance = Balance(recipe.balance, parts, others | self.unpaired.weights(parts), recipe.loop)
        recipe.validate_every = self.batches.steps_per_epoch
        recipe.steps = recipe.epochs * recipe.validate_every
        self.corpus = self.pairs.digest + self.unpaired.digest + origin_of(recipe.asr, recipe.t2s)
        self.best = Best(self.average)

    @property
    def parts(self) -> dict[str, Any]:
        """See ``Learner``."""
        return super().parts | {"best": self.best, "balance": self.balance}

    def open_data(self) -> None:
        """Speech that is learned from, its epochs, its prefixes, and what is held out of each domain."""
        data, replay, seed = self.recipe.data, self.recipe.replay, self.recipe.seed
        unpaired = self.recipe.unpaired
        self.unpaired = Unpaired.read(unpaired, self.tokenizer, self.vocabulary, data.longest, data.cache)
        self.unpaired_share = self.devices.share_of(unpaired.batch, "unpaired.batch") if self.unpaired else slice(0)
        self.pairs = self.pairs_of(data.manifests, "train", data.limit)
        held_out = {"": self.pairs_of(data.validation or data.manifests, "dev", data.validation_files)}
        own, chosen = len(self.pairs), None
        if replay.manifests:
            held_out["replay-"] = self.pairs_of(replay.manifests, "dev", data.validation_files)
        if replay.share:
            self.pairs = self.pairs.joined(self.pairs_of(replay.manifests, "train", 0))
            chosen = partial(with_replay, own, len(self.pairs) - own, replay.share, seed)
        self.batches = Batches(self.pairs.lengths, data.batch, seed, chosen)
        self.prefixes = self.prefixes_of(self.pairs)
        self.held_out = {name: (pairs, self.prefixes_of(pairs)) for name, pairs in held_out.items()}

    def pairs_of(self, manifests: list[str], split: str, limit: int) -> Pairs:
        """Semantic codes and text of a split."""
        options = self.recipe.data.pairing(split) | {"limit": limit, "tell": self.devices.main}
        return Pairs.build(manifests, split, self.tokenizer, self.vocabulary, **options)

    def prefixes_of(self, pairs: Pairs) -> Prefixes:
        """Of a corpus, as the recipe has them."""
        return Prefixes.of(pairs, self.recipe.prefix)

    def estimator(self, rows: Tensor) -> Tensor:
        """The interface at the temperature of this epoch."""
        interface, epoch = self.recipe.interface, self.batches.epoch(self.step)
        return ESTIMATORS[interface.estimator](rows, interface.temperature.at(epoch, self.recipe.epochs))

    def advance(self) -> dict[str, float]:
        """One update, and the balance of what follows; see ``train.loop.Trainee``."""
        self.weights = self.balance.weights
        values = super().advance()
        learned = {} if self.model.balance is None else self.model.balance.weights
        values |= {f"weight/{task}": weight for task, weight in (self.balance.tasks | learned).items()}
        if self.recipe.loop:
            self.balance.observe(values)
            if self.step % self.batches.steps_per_epoch == 0:
                self.balance.dynamic.end_epoch()
        return values

    def losses(self) -> dict[str, Tensor]:
        """Of this process's share of the step's utterances, by the recogniser, the speaker, and both in a row."""
        recipe, mean = self.recipe, partial(mean_over_frames, devices=self.devices)
        picks = self.batches.share_of(self.step, self.devices)
        batch = asr.batch_of(self.pairs, picks, self.devices.device)
        draws = prefix_draws(picks, recipe.seed, self.step)
        spoken = t2s.batch_of(self.pairs, self.prefixes, picks, draws).to(self.devices.device)
        losses, rows = self.model.listen(*batch, mean)
        if recipe.gold:
            losses |= self.model.t2s.losses(spoken, mean)
        if recipe.loop:
            losses |= self.model.repeat(rows, spoken, self.estimator, recipe.interface.gradient, mean)
            draws = np.random.default_rng((recipe.seed, self.step, DRAWS))
            losses |= self.unpaired.losses(self.model, self.estimator, draws, self.unpaired_share, mean)
        if self.model.balance is not None:
            losses[UNCERTAINTY] = self.model.balance({ASR: self.balance.together(losses), CHAIN: losses[CHAIN]})
        return losses

    @torch.inference_mode()
    def validate(self, counted: bool) -> tuple[dict[str, Any], list[str]]:
        """Figures of both averaged models on held-out speech of each domain; see ``asr.figures``, ``t2s.figures``."""
        found, size = {}, self.recipe.data.batch
        for domain, (pairs, prefixes) in self.held_out.items():
            own = asr.figures(self.average.asr, pairs, size, self.devices)
            own |= t2s.figures(self.average.t2s, pairs, prefixes, size, self.devices)
            found |= {domain + name: value for name, value in own.items()}
        if counted:
            self.best.see(found[f"cer/{self.recipe.judged}"], self.average)
        return found, []

    def export(self, folder: Path) -> None:
        """Two folders, ``asr`` and ``t2s``, as the trainers of these write them."""
        chain = self.best.model if self.recipe.keep == "best" and self.best.error is not None else self.average
        card = {"epochs": self.recipe.epochs, "steps": self.step, "seed": self.recipe.seed}
        card["hours"] = round(self.pairs.seconds / 3600, 2)
        tokens = tokens_section(self.tokenizer)
        save_recogniser(chain.asr, self.vocabulary, folder / "asr", tokens, card)
        save_t2s(chain.t2s, self.vocabulary, folder / "t2s", tokens, card)


def chain_of(recipe: ChainRecipe, tokenizer: Tokenizer) -> tuple[Chain, TextVocabulary]:
    """The two trained models as one, and their text.

    Raises:
        CheckpointError: one of them cannot be read, or was trained on other codes.
        ConfigError: they do not share their text.
    """
    recogniser, vocabulary, heard = load_recogniser(recipe.asr)
    speaker, known, spoken = load_t2s(recipe.t2s)
    for folder, header in ((recipe.asr, heard), (recipe.t2s, spoken)):
        require_tokens(header, tokenizer, folder)
    if known.digest != vocabulary.digest:
        raise ConfigError(f"{recipe.t2s}: has another text vocabulary than {recipe.asr}; train it with that one")
    balance = UncertaintyWeights((ASR, CHAIN)) if recipe.loop and recipe.balance.kind == "uncertainty" else None
    return Chain(recogniser, speaker, balance), vocabulary


def with_replay(own: int, others: int, share: float, seed: int, epoch: int) -> np.ndarray:
    """Utterances of an epoch: the first ``own``, and of the ``others`` behind them as many as make up their share.

    All of the others where they are too few for it.
    """
    count = min(others, round(own * share / (1 - share)))
    replayed = np.random.default_rng((seed, REPLAY, epoch)).permutation(others)[:count]
    return np.concatenate([np.arange(own), own + replayed])


def train(recipe: ChainRecipe, folder: Path, stop_at: int | None = None) -> ChainLearner:
    """Train for ``recipe.epochs`` (or until step ``stop_at``), resuming what ``folder`` holds, and export the models.

    Raises:
        CheckpointError: tokenizer, recogniser or speaker cannot be loaded.
        ConfigError: the recipe does not fit the data, the processes or what ``folder`` holds.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    prepare(recipe, folder)
    learner = ChainLearner(recipe)
    run(learner, folder, stop_at)
    return learner


main = partial(run_command, ChainRecipe, train)
