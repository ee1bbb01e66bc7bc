"""The tokens as they come: how well the codebooks are used, what they cost, and what they tell about phones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.audio import read
from speechtok.bench.codebooks import codebook_usage, entropy_bitrate
from speechtok.bench.facts import Fact, Facts, Item, collect
from speechtok.bench.metrics import UNREADABLE, Score
from speechtok.bench.phonetics import SCORES, UtteranceCounts
from speechtok.bench.reconstruction import level_choices
from speechtok.bench.statistics import Estimate
from speechtok.bench.tables import SHOWN, Shown
from speechtok.bench.tasks import (
    ALL,
    EVERYTHING,
    FIRST,
    About,
    Options,
    Place,
    Share,
    Speech,
    conclude,
    level_role,
    summary_row,
)
from speechtok.errors import AudioError, SpeechtokError
from speechtok.guidance.phones import Segment, frame_labels, read_segments
from speechtok.layouts.runs import run_lengths
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens, nominal_bitrate

NAME = "codes"
HELP = "Nothing is decoded: usage and entropy of the codebooks, bitrates, and what each level tells about the phone."
MEASURES = {name: SHOWN[name] for name in ("pnmi", "phone_purity")} | {
    "cluster_purity": Shown("cluster purity", True),
    "usage": Shown("codes in use", True),
    "perplexity": Shown("perplexity", True, 0),
    "nominal_bitrate": Shown("bit/s", False, 0),
    "entropy_bitrate": Shown("bit/s, entropy-coded", False, 0),
    "tokens_per_second": Shown("tokens/s", False, 1),
    "runs_per_second": Shown("tokens/s, runs said once", False, 1),
}
TOKENS = "tokens"
"""The fact that holds what an utterance became: codes ``[Q, N]`` of all levels, how much that is, and its seconds."""
UNALIGNED = "no alignment"


def measure(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``. Rates are those of any kind of tokens; the rest is about codes."""
    about, found = About.of(tokenizer, NAME), prepare(tokenizer, speech, folder, options)
    items = list(found)
    rows = conclude(about, folder, items, _rates(tokenizer, found))
    codes = {item: np.array(fact.value["codes"]) for item, fact in found.items() if fact.failure is None}
    if not issubclass(tokenizer.value, Tokens) or not codes:
        return rows
    failures = Counter(fact.failure for fact in found.values() if fact.failure is not None)
    rows += _usage(about, tokenizer, list(codes.values()), failures)
    return rows + (_phones(about, tokenizer, codes, read_segments(speech.phones), failures) if speech.phones else [])


def prepare(
    tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options, share: Share = EVERYTHING
) -> dict[Item, Fact]:
    """What every counted recording, or a share of them, becomes; what ``folder`` holds is not encoded again."""
    facts, items = Facts(folder, tokenizer.fingerprint, share.number), share.take(speech.counted)
    collect([(item, [TOKENS]) for item in items], facts, partial(encoded, tokenizer), f"{tokenizer.name}: {NAME}")
    return {item: facts[item, TOKENS] for item in items}


def encoded(tokenizer: Tokenizer, item: Item, missing: list[str]) -> dict[str, Fact]:
    """The fact ``TOKENS`` of a recording."""
    try:
        tokens = tokenizer.encode(read(item.utterance.path))
    except AudioError:
        return {TOKENS: Fact(None, UNREADABLE)}
    except SpeechtokError as error:
        return {TOKENS: Fact(None, f"it cannot be encoded: {error}")}
    codes = tokens.codes.tolist() if isinstance(tokens, Tokens) else None
    count = tokens.codes.size if isinstance(tokens, Tokens) else len(tokens.payload)
    return {TOKENS: Fact({"codes": codes, "count": count, "seconds": tokens.seconds, "bitrate": tokens.bitrate})}


def _rates(tokenizer: Tokenizer, found: Mapping[Item, Fact]) -> dict[Place, list[Score]]:
    """Rates per second of each utterance, weighted by its seconds, which gives those of the whole."""
    levels = tokenizer.levels or None
    scores = {
        Place("tokens_per_second", ALL, levels): [_rate(fact, "count") for fact in found.values()],
    }
    if issubclass(tokenizer.value, Tokens):
        scores[Place("runs_per_second", FIRST, 1)] = [_rate(fact, "runs") for fact in found.values()]
    else:
        scores[Place("nominal_bitrate", ALL, levels)] = [_rate(fact, "bitrate") for fact in found.values()]
    return scores


def _rate(fact: Fact, what: str) -> Score:
    if fact.failure is not None:
        return Score(what, None, fact.failure)
    seconds = fact.value["seconds"]
    if what == "bitrate":
        return Score(what, fact.value["bitrate"], weight=seconds)
    count = fact.value["count"] if what == "count" else run_lengths(np.array(fact.value["codes"][:1]))[1].size
    return Score(what, count / seconds, weight=seconds)


def _usage(
    about: About, tokenizer: Tokenizer, codes: Sequence[np.ndarray], failures: Counter[str]
) -> list[dict[str, Any]]:
    """Figures of the whole body of speech, which have no mean over utterances and so no interval."""
    usage, n = codebook_usage(codes, tokenizer.codebook_sizes), len(codes)
    rows = []
    for level, one in enumerate(usage):
        for measure, value in (("usage", one.usage), ("perplexity", one.perplexity)):
            estimate = _counted(Estimate(value, None, None, n), failures)
            rows.append(summary_row(about, measure, _level(level), estimate, 1 if level == 0 else None))
    for count in level_choices((1, 2, 4, 8), tokenizer):
        nominal = nominal_bitrate(tokenizer.frame_rate, tokenizer.codebook_sizes[:count])
        real = entropy_bitrate(usage[:count], tokenizer.frame_rate)
        for measure, value in (("nominal_bitrate", nominal), ("entropy_bitrate", real)):
            estimate = _counted(Estimate(value, None, None, n), failures)
            rows.append(summary_row(about, measure, level_role(count, tokenizer.levels), estimate, count))
    return rows


def _phones(
    about: About,
    tokenizer: Tokenizer,
    codes: Mapping[Item, np.ndarray],
    segments: Mapping[str, Sequence[Segment]],
    failures: Counter[str],
) -> list[dict[str, Any]]:
    """What each level tells about the phones, of the utterances that are aligned."""
    aligned = {item: rows for item, rows in codes.items() if segments.get(item.name)}
    failures = failures + Counter({UNALIGNED: len(codes) - len(aligned)})
    labels = [frame_labels(segments[item.name], rows.shape[1], tokenizer.frame_rate) for item, rows in aligned.items()]
    rows = []
    for level in range(tokenizer.levels if aligned else 0):
        estimates = UtteranceCounts(labels, [one[level] for one in aligned.values()]).estimates()
        rows += [
            summary_row(about, name, _level(level), _counted(estimates[name], failures), 1 if level == 0 else None)
            for name in SCORES
        ]
    return rows


def _level(level: int) -> str:
    return FIRST if level == 0 else f"level {level + 1}"


def _counted(estimate: Estimate, failures: Counter[str]) -> Estimate:
    return replace(estimate, failed=failures.total(), reasons=tuple(failures.most_common()))
