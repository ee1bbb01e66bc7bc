"""What a study of the chain compares, and how its runs are trained and measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import speechtok
from speechtok.bench.ablation import SLUG
from speechtok.bench.chain_study.curves import Curves, read_curves
from speechtok.bench.recognition import NORMALISER, Item, choose_utterances, measure
from speechtok.bench.variants import Variant
from speechtok.chain.decoding import SearchConfig
from speechtok.chain.saved import WEIGHTS, digest_of
from speechtok.config import from_yaml, require_whole
from speechtok.errors import ConfigError
from speechtok.files import make_folder, write_text_atomic
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.chain_recipe import ChainRecipe

START = "start"
"""The models that all runs begin with, measured as they are."""
TARGET, SOURCE = "target", "source"
QUICK_UTTERANCES = 4
FILES = [f"model/{part}/{file}" for part in ("asr", "t2s") for file in ("config.json", WEIGHTS)]


@dataclass
class Rating:
    """How the exported recognisers are tested."""

    target: str = ""
    """Manifest of the domain that is trained on."""
    source: str = ""
    """Manifest of the domain where the models come from; empty where it is the same."""
    split: str = "test"
    utterances: int = 0
    """Of each split, at most, spread evenly; 0 takes all."""
    search: SearchConfig = field(default_factory=lambda: SearchConfig(beam=10))

    def __post_init__(self) -> None:
        require_whole(self, 0, "utterances", section="testing.")
        if not self.target:
            raise ConfigError("testing.target is empty; name the manifest of the domain that is trained on")

    @property
    def domains(self) -> dict[str, str]:
        """Manifests by domain."""
        return {TARGET: self.target} | ({SOURCE: self.source} if self.source else {})


@dataclass
class ChainStudy:
    """Variants of one recipe of ``train chain``. Paths are relative to the working directory, as in recipes."""

    testing: Rating
    recipe: str = "recipe.yaml"
    """What all variants change."""
    overrides: list[str] = field(default_factory=list)
    """``name=value`` for every variant: the common budget, the data."""
    variants: dict[str, list[str]] = field(default_factory=dict)
    """``name=value`` of each variant, which follow the common ones."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    baseline: str = "supervised"
    """The variant that changes are taken from."""
    judged: Literal["ctc", "attention"] = "ctc"
    """Whose character error on dev says which epoch is as good as the baseline's best."""
    quick: list[str] = field(default_factory=list)
    """``name=value`` of a trial run that only shows whether everything works."""

    def __post_init__(self) -> None:
        wrong = [name for name in self.variants if not name or name[0] == "." or not set(name) <= SLUG or name == START]
        if wrong:
            raise ConfigError(f"{wrong[0]!r} cannot name a variant; use letters, digits, - _ and .")
        if self.baseline not in self.variants:
            raise ConfigError(f"baseline is {self.baseline!r}; it must be one of {', '.join(self.variants) or 'none'}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("seeds must name at least one seed, each once")
        fixed = [one for own in self.variants.values() for one in own if one.startswith("seed=")]
        if fixed:
            raise ConfigError(f"a variant says {fixed[0]}; seeds are those of the study")

    def in_brief(self) -> ChainStudy:
        """The trial run."""
        few = min(QUICK_UTTERANCES, self.testing.utterances or QUICK_UTTERANCES)
        testing = replace(self.testing, utterances=few)
        return replace(self, overrides=[*self.overrides, *self.quick], seeds=self.seeds[:1], testing=testing)

    def recipe_of(self, name: str) -> ChainRecipe:
        """What a variant trains, but for its seed.

        Raises:
            ConfigError: a setting that does not exist, or of the wrong type.
        """
        return from_yaml(ChainRecipe, self.recipe, [*self.overrides, *self.variants[name]])

    def run_of(self, name: str, seed: int, folder: Path) -> Variant:
        """One training in ``folder/variants/NAME/seed-SEED``.

        Raises:
            CheckpointError: a model that it begins with is missing.
        """
        recipe = self.recipe_of(name)
        overrides = [*self.overrides, *self.variants[name], f"seed={seed}"]
        given = {part: digest_of(getattr(recipe, part)) for part in ("asr", "t2s")}
        place = folder / "variants" / name / f"seed-{seed}"
        return Variant("chain", f"{name}-{seed}", self.recipe, overrides, place, FILES, given)


class Run(NamedTuple):
    """One training that is done and tested; the models of the beginning have no curves."""

    variant: str
    seed: int
    curves: Curves | None
    tests: dict[str, list[dict[str, Any]]]
    """Rows of ``recognition.Recognised`` by domain."""


class Testers:
    """What recognisers are tested with; results are kept, so that a study that is started again tests nothing twice.

    Raises:
        ConfigError: a manifest cannot be read or has no texts.
        CheckpointError: no such tokenizer.
    """

    def __init__(self, study: ChainStudy):
        self.testing, split = study.testing, study.testing.split
        self.items: dict[str, list[Item]] = {
            name: choose_utterances(manifest, split, study.testing.utterances)
            for name, manifest in study.testing.domains.items()
        }
        self.tokenizer: Tokenizer = speechtok.load(study.recipe_of(study.baseline).tokenizer)

    def __call__(self, model: Path, place: Path) -> dict[str, list[dict[str, Any]]]:
        """Every utterance of each domain by the recogniser of ``model``, kept in ``place``."""
        make_folder(place)
        return {name: self._domain(model, items, place / f"test-{name}.json") for name, items in self.items.items()}

    def _domain(self, model: Path, items: Sequence[Item], kept: Path) -> list[dict[str, Any]]:
        order = {"weights": digest_of(model), "search": asdict(self.testing.search), "normaliser": NORMALISER}
        order |= {"tokenizer": self.tokenizer.fingerprint, "split": self.testing.split}
        order |= {"utterances": [[name, utterance.text] for name, utterance in items]}
        try:
            known = json.loads(kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        if known.get("order") != order:
            _, found = measure(model, items, self.testing.search, self.tokenizer)
            known = {"order": order, "rows": [one.row() for one in found]}
            write_text_atomic(kept, json.dumps(known, ensure_ascii=False) + "\n")
        return known["rows"]


def finished_runs(study: ChainStudy, testers: Testers, folder: Path) -> list[Run]:
    """All trained runs of the study, tested, and before them the models that they begin with."""
    recipe = study.recipe_of(study.baseline)
    runs = [Run(START, 0, None, testers(Path(recipe.asr), folder / START))]
    for name in study.variants:
        for seed in study.seeds:
            variant = study.run_of(name, seed, folder)
            if variant.trained:
                tests = testers(variant.place / "model" / "asr", variant.place)
                runs.append(Run(name, seed, read_curves(variant.place), tests))
    return runs
