"""Probe tasks: what they ask, the figures that come out, and how nothing is measured twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from speechtok.bench.facts import Item
from speechtok.bench.metrics import Score
from speechtok.bench.probes.questions import Label, columns_of
from speechtok.bench.probes.recipe import TEST, TRAIN, ProbeRecipe
from speechtok.bench.probes.tokens import make_tokens
from speechtok.bench.probes.training import Corpus, Trained, chance_of, levels_of, place_of, train
from speechtok.bench.statistics import summarize
from speechtok.bench.tasks import (
    EVERYTHING,
    About,
    Options,
    Place,
    Share,
    Speech,
    level_role,
    overrides_of,
    summary_row,
    utterance_rows,
    write_rows,
)
from speechtok.config import with_overrides
from speechtok.errors import NotSupportedError
from speechtok.files import write_text_atomic
from speechtok.tokenizers.base import Tokenizer

CHANCE = "chance"
"""Role of figures of a guesser who heard nothing and always names the commonest class of the training part."""
QUICK = {"steps": 4, "epochs": 0, "log_every": 4, "validate_every": 4, "checkpoint_every": 4}


class Figure(NamedTuple):
    """Scores of the tested utterances in one measure."""

    measure: str
    items: Sequence[Item]
    scores: Sequence[Score]
    chance: bool = False
    about: dict[str, Any] = {}  # noqa: RUF012 - never changed
    """Further plain values for the summary row."""


@dataclass(frozen=True)
class ProbeTask:
    """A task of ``speechtok bench`` that trains a probe; its ``measure`` is that of its module.

    Args:
        name: as the command knows it.
        goal: what the probe learns, see ``ProbeRecipe.goal``.
        figures: what is measured with the trained probe.
        label: where classes are written, see ``ProbeData.label``.
        within: whether the parts are drawn within classes, see ``ProbeData.within``.
    """

    name: str
    goal: str
    figures: Callable[[Trained], list[Figure]]
    label: str = ""
    within: bool = False

    def measure(self, tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
        """Train probes of ``options.probe_levels`` on the manifest's splits, and test them.

        Raises:
            NotSupportedError: text tokens, or the manifest lacks what the task asks for.
            ConfigError: a setting among ``options.probe`` that recipes do not have, or none of the levels is there.
        """
        recipe = self.recipe_for(speech, folder, options)
        return self.run(tokenizer, recipe, reachable(tokenizer, options.probe_levels), folder)

    def prepare(
        self, tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options, share: Share = EVERYTHING
    ) -> None:
        """Make the tokens of a share of the corpus, which is most of what a probe costs.

        Raises:
            as ``measure``.
        """
        recipe = self.recipe_for(speech, folder, options)
        for questions in Corpus.read(recipe).splits.values():
            make_tokens(tokenizer, [question.item for question in questions], recipe.data.cache, share)

    def recipe_for(self, speech: Speech, folder: Path, options: Options) -> ProbeRecipe:
        """The small recipe with the task's question about this speech, and what the options change in it.

        Raises:
            as ``measure``.
        """
        manifest = speech.manifest
        if self.label and Label.parse(self.label).column not in columns_of(manifest):
            raise NotSupportedError(f"{self.name} needs a manifest with the column {Label.parse(self.label).column!r}")
        if self.goal == "phones" and speech.phones is None:
            raise NotSupportedError("it needs aligned phones; give the phones.tsv of speechtok align")
        recipe = self.adapted(
            ProbeRecipe.small(self.goal), [str(manifest)], [str(speech.phones)], folder.parent / "tokens"
        )
        recipe = replace(recipe, seed=options.seed)
        if options.quick:
            few = replace(recipe.data, limit=60 if self.within else 24, least=3, batch=4)
            network = replace(recipe.network, embedding=16, width=16)
            recipe = replace(recipe, **QUICK, data=few, network=network)
        return with_overrides(recipe, overrides_of(self.name, options), "--probe")

    def adapted(
        self, recipe: ProbeRecipe, manifests: Sequence[str], alignments: Sequence[str], cache: Path, label: str = ""
    ) -> ProbeRecipe:
        """A recipe with this task's question about this speech; ``label`` takes the place of the task's own."""
        data = {"manifests": [*manifests], "cache": str(cache), "within": self.within or recipe.data.within}
        data |= {"alignments": [*alignments] if self.goal == "phones" else []}
        data |= {"label": label or self.label}
        return replace(recipe, goal=self.goal, data=replace(recipe.data, **data))

    def run(
        self, tokenizer: Tokenizer, recipe: ProbeRecipe, levels: Sequence[int], folder: Path
    ) -> list[dict[str, Any]]:
        """Summary rows of probes that read so many levels each (0: all); the utterances' rows go into ``folder``.

        Probes lie beside ``folder``, because tasks share them.

        Raises:
            as ``Corpus.read`` and ``train`` do.
        """
        counts = [*dict.fromkeys(levels_of(tokenizer, count) for count in levels)]
        corpus, summary, rows = Corpus.read(recipe), [], []
        about = About.of(tokenizer, self.name)
        for count in counts:
            found = self.known(tokenizer, replace(recipe, levels=count or 0), corpus, folder.parent / "probes")
            for one in found:
                if one.chance and count != counts[-1]:
                    continue  # a guesser hears no levels, so one such figure is enough
                role = level_role(count or 0, tokenizer.levels)
                place = Place(one.measure, CHANCE) if one.chance else Place(one.measure, role, count)
                estimate = summarize(one.scores)
                summary.append(summary_row(about, place.measure, place.role, estimate, place.levels, **one.about))
                rows += utterance_rows(about, place, one.items, one.scores)
        write_rows(folder, tokenizer.fingerprint, rows)
        return summary

    def known(self, tokenizer: Tokenizer, recipe: ProbeRecipe, corpus: Corpus, folder: Path) -> list[Figure]:
        """The figures, measured now or by an earlier call."""
        place = place_of(recipe, tokenizer, corpus, folder)
        path = place / f"{self.name}.json"
        items = {question.item.key: question.item for part in corpus.parts.values() for question in part}
        if not path.exists():
            trained = train(recipe, tokenizer, corpus, place)
            about = facts_of(trained)
            found = [one._replace(about=about | one.about) for one in self.figures(trained)]
            write_text_atomic(path, json.dumps([*map(_plain, found)]) + "\n")
        return [_figure(one, items) for one in json.loads(path.read_text(encoding="utf-8"))]


def reachable(tokenizer: Tokenizer, levels: Sequence[int]) -> list[int]:
    """Those of the numbers of levels that the tokenizer has; 0, all, always is there.

    Raises:
        NotSupportedError: it has none of them.
    """
    found = [count for count in levels if count <= max(1, tokenizer.levels)]
    if not found:
        raise NotSupportedError(f"{tokenizer.name} has {tokenizer.levels} levels; probes were to read {levels}")
    return found


def facts_of(trained: Trained) -> dict[str, Any]:
    """What a figure of a probe should not be read without."""
    learner = trained.learner
    return {
        "probe": learner.recipe.name,
        "steps": learner.step,
        "seed": learner.recipe.seed,
        "parameters": sum(weight.numel() for weight in learner.model.parameters()),
        "trained_on": len(learner.training.items),
    }


def accuracies(trained: Trained, measure: str = "accuracy") -> list[Figure]:
    """Share of right answers of the test part, and that of the commonest class."""
    test, learner = trained.parts[TEST], trained.learner
    errors = [
        learner.goal.errors(answer, target) for answer, target in zip(learner.answers(test), test.targets, strict=True)
    ]
    right = [Score(measure, 1 - wrong / total, weight=total) for wrong, total in errors]
    guessed = zip(chance_of(trained.parts[TRAIN], test), right, strict=True)
    chance = [Score(measure, value, weight=score.weight) for value, score in guessed]
    classes = {"classes": len(learner.goal.classes)}
    return [figure(trained, measure, right, about=classes), figure(trained, measure, chance, True, classes)]


def figure(
    trained: Trained,
    measure: str,
    scores: Sequence[Score],
    chance: bool = False,
    about: dict[str, Any] | None = None,
    part: str = TEST,
) -> Figure:
    """Scores of the usable utterances of a part, with the others as failures behind them."""
    examples = trained.parts[part]
    failed = [Score(measure, None, reason) for _, reason in examples.failures]
    items = [*examples.items, *(item for item, _ in examples.failures)]
    return Figure(measure, items, [*scores, *failed], chance, about or {})


def _plain(one: Figure) -> dict[str, Any]:
    scores = [[item.key, asdict(score)] for item, score in zip(one.items, one.scores, strict=True)]
    return {"measure": one.measure, "chance": one.chance, "about": one.about, "scores": scores}


def _figure(plain: dict[str, Any], items: dict[str, Item]) -> Figure:
    found, scores = zip(*((items[key], Score(**score)) for key, score in plain["scores"]), strict=True)
    return Figure(plain["measure"], found, scores, plain["chance"], plain["about"])
