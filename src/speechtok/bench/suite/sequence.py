"""The first level as a language model meets it: how hard it is to guess, and how far merging shortens it.

Both the language model (see ``bench.ngrams``) and the merges (acoustic byte-pair encoding, see ``layouts.bpe``) are
learned on the train split of the manifest and measured on the recordings whose codes ``codes`` counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.bench.facts import Fact, Item, item_of
from speechtok.bench.metrics import Score
from speechtok.bench.ngrams import ORDER, WittenBell
from speechtok.bench.probes.recipe import TRAIN
from speechtok.bench.probes.tokens import make_tokens, token_rows
from speechtok.bench.statistics import summarize
from speechtok.bench.suite import codes
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import (
    EVERYTHING,
    FIRST,
    About,
    Options,
    Place,
    Share,
    Speech,
    does_not_apply,
    summary_row,
    utterance_rows,
    write_rows,
)
from speechtok.errors import ConfigError, NotSupportedError
from speechtok.layouts.bpe import Bpe, train_bpe
from speechtok.layouts.vocabulary import Vocabulary
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens
from speechtok.train.data import evenly, read_manifest

NAME = "sequence"
HELP = (
    "The first level as a sequence: a fixed trigram model and acoustic byte-pair encoding, learned on the train split."
)
BITS, PERPLEXITY, BITS_PER_SECOND = "lm_bits_per_token", "lm_perplexity", "lm_bits_per_second"
UNITS, COMPRESSION = "bpe_tokens_per_second", "bpe_compression"
MEASURES = {
    BITS: Shown("bits per token", False, 2),
    PERPLEXITY: Shown("perplexity of the model", False, 0),
    BITS_PER_SECOND: Shown("bits per second of audio", False, 0),
    UNITS: Shown("tokens/s after BPE", False, 1),
    COMPRESSION: Shown("codes per token of BPE", True, 2),
}
QUICK_UTTERANCES, QUICK_MERGES = 12, 32


@dataclass(frozen=True)
class Settings:
    """What is learned from."""

    train_utterances: int = 400
    """Of the train split, spread evenly over it."""
    merges: int = 1024
    """Of byte-pair encoding; fewer where no pair is left that occurs twice."""


def measure(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``.

    Raises:
        NotSupportedError: vectors or text, or no manifest with a train split.
    """
    items = _training_items(tokenizer, speech, options)
    tested = codes.prepare(tokenizer, speech, _codes(folder), options)
    found = token_rows(tokenizer, items, _tokens(folder))
    learned = [rows[:, 0].astype(np.int64) for rows in found if not isinstance(rows, str)]
    if not learned:
        raise NotSupportedError("no utterance of the train split could be encoded")
    about, size = About.of(tokenizer, NAME), tokenizer.codebook_sizes[0]
    more = {"trained_on": len(learned), "train_tokens": sum(map(len, learned)), "order": ORDER}
    scores = _model_scores(WittenBell(learned, size), tested)
    rows = [_row(about, measure, one, more) for measure, one in scores.items()]
    rows.insert(1, _perplexity(rows[0]))
    try:
        merged, merges = _merged_scores(tokenizer, learned, tested, _settings(options).merges)
    except ConfigError as error:  # the package is missing, or the codebook is too large
        rows.append(does_not_apply(about, str(error), UNITS, FIRST))
    else:
        rows += [_row(about, measure, one, more | {"merges": merges}) for measure, one in merged.items()]
        scores |= merged
    places = {Place(measure, FIRST, 1): one for measure, one in scores.items()}
    write_rows(
        folder,
        about.fingerprint,
        (row for place, one in places.items() for row in utterance_rows(about, place, list(tested), one)),
    )
    return rows


def prepare(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options, share: Share = EVERYTHING) -> None:
    """Make the tokens of a share of the training utterances and of the tested ones.

    Raises:
        as ``measure``.
    """
    items = _training_items(tokenizer, speech, options)
    codes.prepare(tokenizer, speech, _codes(folder), options, share)
    make_tokens(tokenizer, items, _tokens(folder), share)


def _training_items(tokenizer: Tokenizer, speech: Speech, options: Options) -> list[Item]:
    if not issubclass(tokenizer.value, Tokens):
        raise NotSupportedError(f"{tokenizer.name} gives no codes; the language model and the merges are about codes")
    try:
        utterances, folder = read_manifest(speech.manifest, TRAIN), speech.manifest.parent
    except ConfigError as error:
        raise NotSupportedError(f"it learns from the train split; {error}") from error
    count = min(len(utterances), _settings(options).train_utterances)
    return [item_of(utterances[place], folder) for place in evenly(len(utterances), count)]


def _settings(options: Options) -> Settings:
    return Settings(QUICK_UTTERANCES, QUICK_MERGES) if options.quick else Settings()


def _codes(folder: Path) -> Path:
    """Where the task ``codes`` keeps what the recordings became."""
    return folder.parent / codes.NAME


def _tokens(folder: Path) -> Path:
    """Where the probes keep the tokens of their corpora."""
    return folder.parent / "tokens"


def _model_scores(model: WittenBell, tested: Mapping[Item, Fact]) -> dict[str, list[Score]]:
    """Bits by token and by second of every utterance, weighted so that their means are those of the whole."""
    found: dict[str, list[Score]] = {BITS: [], BITS_PER_SECOND: []}
    for fact in tested.values():
        if fact.failure is not None:
            for measure, scores in found.items():
                scores.append(Score(measure, None, fact.failure))
            continue
        row, seconds = np.array(fact.value["codes"][0]), fact.value["seconds"]
        bits = -float(model.log2_probabilities(row).sum())
        found[BITS].append(Score(BITS, bits / len(row), weight=len(row)))
        found[BITS_PER_SECOND].append(Score(BITS_PER_SECOND, bits / seconds, weight=seconds))
    return found


def _merged_scores(
    tokenizer: Tokenizer, learned: Sequence[np.ndarray], tested: Mapping[Item, Fact], merges: int
) -> tuple[dict[str, list[Score]], int]:
    """Units by second and codes by unit of every utterance, and how many merges there really are."""
    training = [_first_level(tokenizer, row) for row in learned]
    vocabulary = train_bpe(Vocabulary.of(training[0]), training, tokenizer.codebook_sizes[0] + merges)
    layout = Bpe(vocabulary)
    found: dict[str, list[Score]] = {UNITS: [], COMPRESSION: []}
    for fact in tested.values():
        if fact.failure is not None:
            for measure, scores in found.items():
                scores.append(Score(measure, None, fact.failure))
            continue
        row, seconds = np.array(fact.value["codes"][0]), fact.value["seconds"]
        units = np.size(layout.encode(_first_level(tokenizer, row)))
        found[UNITS].append(Score(UNITS, units / seconds, weight=seconds))
        found[COMPRESSION].append(Score(COMPRESSION, len(row) / units, weight=units))
    return found, len(vocabulary.merges)


def _first_level(tokenizer: Tokenizer, row: np.ndarray) -> Tokens:
    """Codes ``[N]`` of level one as tokens."""
    return Tokens(
        codes=row[None],
        codebook_sizes=tokenizer.codebook_sizes[:1],
        sample_rate=tokenizer.sample_rate,
        hop=tokenizer.hop,
        num_samples=len(row) * tokenizer.hop,
        semantic_levels=tuple(level for level in tokenizer.semantic_levels if level == 0),
        tokenizer=tokenizer.name,
        fingerprint=tokenizer.fingerprint,
    )


def _row(about: About, measure: str, scores: Sequence[Score], more: dict[str, int]) -> dict[str, Any]:
    return summary_row(about, measure, FIRST, summarize(scores), 1, **more)


def _perplexity(bits: dict[str, Any]) -> dict[str, Any]:
    """2 to the figure and to the ends of its interval."""
    raised = {name: None if bits[name] is None else 2 ** bits[name] for name in ("mean", "low", "high")}
    return bits | raised | {"measure": PERPLEXITY}
