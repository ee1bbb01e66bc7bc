"""A recogniser brought to another domain by the chain: trained there, and measured there and where it came from.

Source: TokenChain (arXiv 2510.06201), cross-domain: a straight-through Gumbel-softmax at a fixed low temperature.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import speechtok
from speechtok.bench.judge import error_scores
from speechtok.bench.recognition import (
    MEASURES,
    NORMALISER,
    Item,
    Recognised,
    choose_utterances,
    differences,
    measure,
)
from speechtok.bench.reconstruction import estimate_text, versions
from speechtok.bench.repeats import relative_change
from speechtok.chain.decoding import SearchConfig
from speechtok.chain.recogniser import KIND
from speechtok.chain.saved import read_header
from speechtok.config import from_mapping, from_yaml, with_overrides
from speechtok.errors import ConfigError
from speechtok.files import write_text_atomic
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.chain import train
from speechtok.train.chain_recipe import ChainRecipe

FORMAT, VERSION = "speechtok.adaptation", 1
TARGET, SOURCE = "target", "source"
TEST = "test"
DEFAULTS: dict[str, Any] = {
    "name": "adaptation",
    "seed": 1,
    "epochs": 5,
    "log_every": 10,
    "checkpoint_every": 50,
    "precision": "bf16",
    "gold": 1.0,
    "keep": "last",
    "judged": "ctc",
    "interface": {"estimator": "gumbel", "temperature": {"schedule": "fixed", "first": 0.75}},
    "balance": {"kind": "dynamic", "temperature": 2.0},
    "data": {"batch": 8, "longest": 16.0, "validation_files": 64},
    "optimisation": {
        "rate": 3.0e-4, "betas": [0.9, 0.98], "weight_decay": 0.01, "warmup": 50, "final": 0.05, "clip": 5.0,
        "ema": 0.99,
    },
}  # fmt: skip
"""Those of ``recipes/chain-mini.yaml``, with the temperature that TokenChain found best across domains."""


class Job(NamedTuple):
    """What is adapted to what."""

    asr: Path
    t2s: Path
    target: Path
    source: Path | None = None
    """Where the recogniser comes from; measured, and replayed in training with ``replay`` above 0."""
    replay: float | None = None
    """Share of every epoch's utterances that is the source's; None is the recipe's, or none."""
    recipe: Path | None = None
    """Of ``train chain``; ``DEFAULTS`` without one."""
    overrides: tuple[str, ...] = ()


def recipe_of(job: Job) -> ChainRecipe:
    """The training run of a job.

    Raises:
        CheckpointError: the recogniser cannot be read.
        ConfigError: replay without a source, or a setting that does not exist.
    """
    if job.replay and job.source is None:
        raise ConfigError("replay needs speech of the source; name its manifest with --source")
    given: dict[str, Any] = {"asr": str(job.asr), "t2s": str(job.t2s)}
    if job.source is not None:
        share = {} if job.replay is None else {"share": job.replay}
        given["replay"] = {"manifests": [str(job.source)]} | share
    if job.recipe is not None:
        places = {"data.manifests": [str(job.target)], "data.validation": [], **given}
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in places.items()}
        changes = [f"{name}={text}" for name, text in texts.items()]
        return from_yaml(ChainRecipe, job.recipe, [*changes, *job.overrides])
    header = read_header(job.asr, KIND)
    given |= {"tokenizer": header["tokens"]["tokenizer"], "data": DEFAULTS["data"] | {"manifests": [str(job.target)]}}
    return with_overrides(from_mapping(ChainRecipe, DEFAULTS | given, "adapt"), job.overrides, "adapt")


def adapt(job: Job, folder: Path, search: SearchConfig | None = None, utterances: int = 0) -> dict[str, Any] | None:
    """Train, or go on where a run was, measure, and write ``adaptation.json`` and ``adaptation.md``.

    Args:
        folder: of the run, as ``train chain`` writes it: ``model/asr`` and ``model/t2s`` are the adapted models.
        utterances: of each test split, at most; 0 takes all.

    Returns:
        What ``adaptation.json`` holds; None in all processes but the first.

    Raises:
        SpeechtokError: as ``train.chain.train``; all that can be is said before any work.
    """
    error_scores("a", "a")  # a missing package is said before any work
    recipe, search = recipe_of(job), search or SearchConfig()
    domains = {TARGET: job.target} | ({SOURCE: job.source} if job.source is not None else {})
    items = {name: choose_utterances(manifest, TEST, utterances) for name, manifest in domains.items()}
    learner = train(recipe, folder)
    main = learner.devices.main
    learner.devices.close()
    if not main:
        return None
    tokenizer = speechtok.load(recipe.tokenizer)
    places = {"before": job.asr, "after": folder / "model" / "asr"}
    found = {name: compared(places, items[name], search, tokenizer) for name in domains}
    document = {
        "format": FORMAT, "version": VERSION, "versions": versions(), "recipe": asdict(recipe),
        "settings": {
            **{name: str(manifest) for name, manifest in domains.items()}, "split": TEST, "replay": recipe.replay.share,
            "normaliser": NORMALISER, "search": asdict(search), "confidence": 0.95,
        },
        "domains": found, "forgetting": found[SOURCE]["change"] if SOURCE in found else None,
    }  # fmt: skip
    write_text_atomic(folder / "adaptation.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    write_text_atomic(folder / "adaptation.md", markdown(document))
    return document


def compared(
    places: dict[str, Path], items: Sequence[Item], search: SearchConfig, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Both recognisers on the utterances of a domain, as plain types: summaries, ``change``, ``relative``, rows."""
    heads, rows = {}, {}
    for name, place in places.items():
        heads[name], rows[name] = measure(place, items, search, tokenizer)
    change = {name: one.to_dict() for name, one in differences(rows["after"], rows["before"]).items()}
    return heads | {
        "change": change,
        "relative": {name: _relative(rows["after"], rows["before"], name) for name in MEASURES},
        "utterances": {name: [one.row() for one in found] for name, found in rows.items()},
    }


def _relative(after: Sequence[Recognised], before: Sequence[Recognised], name: str) -> dict[str, Any]:
    one, other = ([row.scores[name] for row in rows] for rows in (after, before))
    weights = [score.weight for score in one]
    return relative_change([s.value for s in one], [s.value for s in other], weights).to_dict()


def markdown(document: dict[str, Any]) -> str:
    """The table for people: a line per domain and rate."""
    lines = [["", "n", "before", "after", "change", "relative change"], ["---"] * 6]
    for name, found in document["domains"].items():
        for rate in MEASURES:
            cells = [found[when]["summary"][rate] for when in ("before", "after")] + [found["change"][rate]]
            texts = [estimate_text(cell, 3) for cell in cells]
            lines.append([f"{name}, {rate.upper()}", str(cells[0]["n"]), *texts, percent_text(found["relative"][rate])])
    settings = document["settings"]
    about = f"Split {settings['split']}, texts in the form {settings['normaliser']}; rates with 95 % intervals over"
    about += " utterances, changes over pairs of the same ones. One training: another seed would move it, too."
    forgetting = "The change on the source is what was forgotten." if SOURCE in document["domains"] else ""
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{table}\n{' '.join(filter(None, (about, forgetting)))}\n"


def percent_text(estimate: dict[str, Any]) -> str:
    """``-12.3 % [-20.1, -4.0]``, or how many failed where nothing was measured."""
    if estimate["mean"] is None:
        return estimate_text(estimate, 3)
    interval = "" if estimate["low"] is None else f" [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"
    return f"{100 * estimate['mean']:+.1f} %{interval}"
