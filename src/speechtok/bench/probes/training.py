"""From a recipe and a tokenizer to a trained probe and the utterances that it is tested on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from speechtok.bench.probes.examples import Examples
from speechtok.bench.probes.goals import NO_ANSWER, CharactersGoal, ClassGoal, Goal, PhonesGoal
from speechtok.bench.probes.learner import ProbeLearner
from speechtok.bench.probes.network import CodeInput, FeatureInput, Probe
from speechtok.bench.probes.questions import Question, questions_of, within_classes
from speechtok.bench.probes.recipe import DEV, PARTS, TRAIN, ProbeRecipe
from speechtok.bench.probes.tokens import Found, require_frames, token_rows
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.soft_tokens import SoftTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.code_vectors import code_vectors
from speechtok.train.loop import FREE, prepare, run
from speechtok.train.transcripts import read_alignments


@dataclass(frozen=True)
class Corpus:
    """The questions of a recipe: as splits, whose tokens are made, and as parts, which a probe learns and is tested on.

    Where the parts are drawn within classes, the only split is ``train``.
    """

    splits: Mapping[str, Sequence[Question]]
    parts: Mapping[str, Sequence[Question]]

    @classmethod
    def read(cls, recipe: ProbeRecipe) -> Corpus:
        """From the manifests.

        Raises:
            ConfigError: a manifest cannot be read or lacks a split.
            NotSupportedError: it does not hold what is asked for.
        """
        data = recipe.data
        names = (TRAIN,) if data.within else PARTS
        splits = {name: questions_of(data, recipe.goal, name) for name in names}
        parts = within_classes(splits[TRAIN], data.least, recipe.seed) if data.within else splits
        missing = NO_ANSWER[recipe.goal]
        for name in PARTS:
            if not any(question.answer for question in parts[name]):
                raise NotSupportedError(f"{data.manifests[0]}: {missing} in any row of split {name!r}")
        return cls(splits, parts)

    @property
    def digest(self) -> str:
        """Of the recordings' bytes and the answers."""
        said = {name: [[question.item.key, question.answer] for question in self.parts[name]] for name in PARTS}
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()


@dataclass(frozen=True)
class Trained:
    """A probe that has learned, and what it has not seen."""

    tokenizer: Tokenizer
    learner: ProbeLearner
    parts: Mapping[str, Examples]


def levels_of(tokenizer: Tokenizer, levels: int) -> int | None:
    """How many levels a recipe means; None for soft tokens, which have none.

    Raises:
        NotSupportedError: text tokens.
        ConfigError: the tokenizer has not so many.
    """
    require_frames(tokenizer)
    if issubclass(tokenizer.value, SoftTokens):
        return None
    return tokenizer.checked_levels(levels or None)


def place_of(recipe: ProbeRecipe, tokenizer: Tokenizer, corpus: Corpus, folder: Path) -> Path:
    """Where the run of these settings, this tokenizer and these recordings lies, and no other."""
    settings = {key: value for key, value in asdict(recipe).items() if key not in FREE}
    settings["data"] = {k: v for k, v in settings["data"].items() if k not in ("manifests", "cache", "alignments")}
    settings["segments"] = [Path(path).read_text(encoding="utf-8") for path in recipe.data.alignments]
    key = hashlib.sha256(json.dumps([settings, corpus.digest]).encode()).hexdigest()[:12]
    levels = levels_of(tokenizer, recipe.levels)
    return folder / f"{tokenizer.fingerprint}-{'soft' if levels is None else levels}-{recipe.goal}-{key}"


def train(
    recipe: ProbeRecipe, tokenizer: Tokenizer, corpus: Corpus, folder: Path, stop_at: int | None = None
) -> Trained:
    """Train until ``recipe.steps`` (or ``stop_at``), resuming what ``folder`` holds.

    Raises:
        ConfigError: the recipe does not fit the tokenizer or the corpus, or ``folder`` holds another run.
        NotSupportedError: text tokens.
        OutputError: ``folder`` or the cache cannot be written.
        TrainingError: a loss or gradient is not finite; the last checkpoint stays as it is.
    """
    levels = levels_of(tokenizer, recipe.levels)
    prepare(recipe, folder)
    goal = goal_of(recipe, tokenizer, corpus)
    tokens: dict[str, Found] = {}
    for questions in corpus.splits.values():
        items = [question.item for question in questions]
        rows = token_rows(tokenizer, items, recipe.data.cache)
        tokens |= {item.key: one for item, one in zip(items, rows, strict=True)}
    parts = {name: examples_of(corpus.parts[name], tokens, goal, levels) for name in PARTS}
    for name, part in parts.items():
        _tell(name, part)
    recipe = recipe.with_steps(len(parts[TRAIN].items))
    model = probe_of(recipe, tokenizer, goal, parts[TRAIN])
    digest = hashlib.sha256(f"{tokenizer.fingerprint} {corpus.digest}".encode()).hexdigest()
    learner = ProbeLearner(recipe, model, goal, parts[TRAIN], parts[DEV], digest)
    run(learner, folder, stop_at)
    return Trained(tokenizer, learner, parts)


def goal_of(recipe: ProbeRecipe, tokenizer: Tokenizer, corpus: Corpus) -> Goal:
    """What the recipe wants to be learned."""
    if recipe.goal == "characters":
        return CharactersGoal(tokenizer.frame_rate, recipe.network.outputs_per_second)
    if recipe.goal == "phones":
        return PhonesGoal(tokenizer.frame_rate, read_alignments(recipe.data.alignments))
    return ClassGoal(sorted({question.answer for question in corpus.parts[TRAIN]} - {""}))


def examples_of(questions: Sequence[Question], tokens: Mapping[str, Found], goal: Goal, levels: int | None) -> Examples:
    """Tokens and targets of a part; utterances that lack one are put aside with the reason."""
    found = Examples()
    for item, answer in questions:
        rows = tokens[item.key]
        target = _target(rows, answer, goal)
        if isinstance(target, str):
            found.failures.append((item, target))
        else:
            found.items.append(item)
            found.rows.append(rows[:, :levels])
            found.targets.append(target)
    return found


def _target(rows: Found, answer: str, goal: Goal) -> Found:
    if isinstance(rows, str):
        return rows
    return goal.target(answer, len(rows)) if answer else NO_ANSWER[goal.name]


def _tell(name: str, part: Examples) -> None:
    """One line about a part.

    Raises:
        ConfigError: nothing of it can be used.
    """
    reasons = Counter(reason for _, reason in part.failures)
    said = "; ".join(f"{count} left out: {reason}" for reason, count in reasons.most_common())
    if not part.items:
        raise ConfigError(f"no utterance of part {name!r} can be used ({said}); correct section data of the recipe")
    print(f"{name}: {len(part.items)} utterances" + (f"; {said}" if said else ""), flush=True)


def probe_of(recipe: ProbeRecipe, tokenizer: Tokenizer, goal: Goal, training: Examples) -> Probe:
    """A new probe for this kind of tokens, drawn from the recipe's seed.

    Raises:
        ConfigError: the tables are to begin at code vectors, and there are none.
    """
    torch.manual_seed(recipe.seed)
    shape, levels = recipe.network, levels_of(tokenizer, recipe.levels)
    if levels is None:
        source = FeatureInput(shape, training.rows[0].shape[1])
        source.fit(training.rows)
    else:
        vectors = code_vectors(tokenizer, levels) if shape.start == "codebooks" else None
        source = CodeInput(shape, tokenizer.codebook_sizes[:levels], vectors)
    return Probe(shape, source, len(goal.classes), goal.pooled, goal.per_frame)


def chance_of(training: Examples, tested: Examples) -> list[float]:
    """Share of each tested answer that the commonest class of the training part gets right."""
    guess = np.bincount(np.concatenate(training.targets)).argmax()
    return [float((target == guess).mean()) for target in tested.targets]
