"""Train every variant of a codec at one budget, measure all of them alike, and say what differs.

    python -m speechtok.bench.ablation STUDY.yaml -o DIR [--only NAME ...] [--quick] [name=value ...]

Started again, it trains and measures only what is missing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import speechtok
from speechtok.bench.comparison import Measured, compare, gather, item_rows, read_phones
from speechtok.bench.facts import ORIGINAL, Evaluation, Facts, choose_items, choose_phone_items, measure_models
from speechtok.bench.reconstruction import versions
from speechtok.bench.tables import draw, markdown
from speechtok.bench.variants import Variant
from speechtok.config import from_yaml
from speechtok.errors import ConfigError, TrainingError, run_module
from speechtok.files import make_folder, write_text_atomic
from speechtok.tokenizers.registry import CONFIG, WEIGHTS

FORMAT, VERSION = "speechtok.ablation", 1
QUICK_UTTERANCES = 4
SLUG = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


@dataclass
class Study:
    """What is compared. Paths are relative to the working directory, as in recipes."""

    recipe: str = "recipe.yaml"
    """The codec recipe that all variants change."""
    overrides: list[str] = field(default_factory=list)
    """``name=value`` for every variant: the common budget, the data."""
    variants: dict[str, list[str]] = field(default_factory=dict)
    """``name=value`` of each variant, which follow the common ones."""
    models: dict[str, str] = field(default_factory=dict)
    """Trained tokenizers to measure beside them: names as ``speechtok.load`` takes them."""
    reference: str = "none"
    """The variant, or model, that differences are taken from."""
    quick: list[str] = field(default_factory=list)
    """``name=value`` of a trial run that only shows whether everything works."""
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        names = [*self.variants, *self.models]
        wrong = [name for name in names if not name or name[0] == "." or not set(name) <= SLUG or name == ORIGINAL]
        if wrong or len(set(names)) < len(names):
            which = wrong[0] if wrong else "one of variants and models"
            raise ConfigError(f"{which!r} cannot name a variant; use each name once, of letters, digits, - _ and .")
        if names and self.reference not in names:
            raise ConfigError(f"reference is {self.reference!r}; it must be one of {', '.join(names)}")

    def in_brief(self) -> Study:
        """The trial run."""
        few = replace(self.evaluation, utterances=min(QUICK_UTTERANCES, self.evaluation.utterances))
        return replace(self, overrides=[*self.overrides, *self.quick], evaluation=few)


def run_study(study: Study, folder: Path, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Train and measure the variants (those in ``only``, or all), and write what is known about all of them.

    ``folder`` gets ``variants/NAME/`` (training runs), ``cache/`` (facts), ``rows.jsonl`` (by utterance),
    ``summary.json``, ``summary.md`` and ``summary.png``.

    Returns:
        The rows of the summary.

    Raises:
        ConfigError: a setting, a manifest, or a missing package.
        TrainingError: a variant could not be trained; the others were, and are in the summary.
    """
    names = [*study.variants, *study.models]
    unknown = sorted(set(only) - set(names))
    if unknown or not names:
        raise ConfigError(f"there is no variant {', '.join(unknown)}; the study has {', '.join(names) or 'none'}")
    chosen = [name for name in names if name in (only or names)]
    items, segments, cache = choose_items(study.evaluation), read_phones(study.evaluation), folder / "cache"
    phone_items = choose_phone_items(study.evaluation)
    failed = [name for name in chosen if name in study.variants and not train_variant(study, name, folder)]
    ready = {name: place for name in names if (place := _model(study, name, folder)) is not None}
    measured_now = [ready[name] for name in chosen if name in ready]
    measure_models([None, *measured_now], study.evaluation, cache)
    complete = _complete(study, ready, items, phone_items, segments, cache)
    rows = compare(complete, study.reference)
    _write(study, folder, rows, [row for one in complete for row in item_rows(one, items)], len(items))
    if failed:
        raise TrainingError(f"not trained: {', '.join(failed)}; what it said stands above, start again to go on")
    return rows


def train_variant(study: Study, name: str, folder: Path) -> bool:
    """Train one variant in a process of its own, or go on where it was; returns whether it is trained."""
    return variant_of(study, name, folder).train()


def trained(study: Study, name: str, folder: Path) -> bool:
    """Whether a variant was trained to its end from these very settings."""
    return variant_of(study, name, folder).trained


def variant_of(study: Study, name: str, folder: Path) -> Variant:
    """One training run of the study."""
    overrides = [*study.overrides, *study.variants[name]]
    files = [f"model/{file}" for file in (CONFIG, WEIGHTS)]
    return Variant("codec", name, study.recipe, overrides, folder / "variants" / name, files)


def _model(study: Study, name: str, folder: Path) -> str | None:
    """Where the model of a variant is, once it is trained."""
    if name in study.models:
        return study.models[name]
    return str(folder / "variants" / name / "model") if trained(study, name, folder) else None


def _complete(
    study: Study, ready: dict[str, str], items: Any, phone_items: Any, segments: Any, cache: Path
) -> list[Measured]:
    """Everything that has been measured on all the items, the recordings first."""
    found = []
    for name, place in [(ORIGINAL, None), *ready.items()]:
        tokenizer = speechtok.load(place) if place else None
        facts = Facts(cache, tokenizer.fingerprint if tokenizer else ORIGINAL)
        found.append(gather(name, tokenizer, items, phone_items, facts, study.evaluation, segments))
    return [one for one in found if one is not None]


def _write(study: Study, folder: Path, rows: list[dict], by_item: list[dict], count: int) -> None:
    document = {"format": FORMAT, "version": VERSION, "study": asdict(study), "confidence": 0.95, "n": count}
    document |= {"versions": versions(), "summary": rows}
    write_text_atomic(folder / "summary.json", json.dumps(document, indent=1) + "\n")
    write_text_atomic(folder / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in by_item))
    write_text_atomic(folder / "summary.md", markdown(rows, study.reference))
    draw(rows, folder / "summary.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m speechtok.bench.ablation", description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path, metavar="STUDY", help="a YAML file, see recipes/ablation.yaml")
    parser.add_argument("settings", nargs="*", metavar="name=value", help="settings that replace the study's")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the study")
    parser.add_argument("--only", nargs="+", action="extend", default=[], metavar="NAME", help="only these variants")
    parser.add_argument("--quick", action="store_true", help="a trial run of a few steps, in DIR/quick")
    options = parser.parse_intermixed_args(arguments)
    study = from_yaml(Study, options.study, options.settings)
    folder = options.output / "quick" if options.quick else options.output
    make_folder(folder)
    run_study(study.in_brief() if options.quick else study, folder, options.only)
    print((folder / "summary.md").read_text(encoding="utf-8"))
    print(f"{folder}: summary.json, summary.md, summary.png, rows.jsonl")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by default a training process would be left behind
    run_module(main)
