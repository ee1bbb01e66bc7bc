"""From facts to a comparison: corpus figures of every tokenizer, and their differences from one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from speechtok.bench.facts import (
    CODES,
    ORIGINAL,
    Evaluation,
    Fact,
    Facts,
    Item,
    first_and_all,
    kind_and_levels,
    wanted_facts,
)
from speechtok.bench.judge import NORMALISERS, error_scores
from speechtok.bench.metrics import Score
from speechtok.bench.phonetics import UtteranceCounts
from speechtok.bench.statistics import ONE_SIDED, Estimate, paired_difference, summarize
from speechtok.guidance.phones import Segment, frame_labels, read_segments
from speechtok.tokenizers.base import Tokenizer

PHONETIC = ("pnmi", "phone_purity")
Place = tuple[str, int]
"""A measure and the number of levels: 0 for the recordings themselves."""


@dataclass
class Measured:
    """One tokenizer over the items of an evaluation."""

    name: str
    fingerprint: str
    levels: tuple[int, ...]
    """The numbers of levels that were decoded; none for the recordings."""
    scores: dict[Place, list[Score]]
    """One score per item."""
    phones: dict[str, tuple[list[str], np.ndarray]]
    """Labels and codes of level one, by item."""
    unaligned: Counter[str]
    """Why the other items have none."""

    def counts(self, among: Container[str] | None = None) -> UtteranceCounts | None:
        """Phones and codes of the items among those named (all by default); None where there are none."""
        names = [name for name in self.phones if among is None or name in among]
        return UtteranceCounts(*zip(*(self.phones[name] for name in names), strict=True)) if names else None


def gather(
    name: str,
    tokenizer: Tokenizer | None,
    items: Sequence[Item],
    phone_items: Sequence[Item],
    facts: Facts,
    evaluation: Evaluation,
    segments: dict[str, list[Segment]],
) -> Measured | None:
    """Scores of a tokenizer, or of the recordings (None), from its facts; None where some are missing."""
    levels = first_and_all(tokenizer) if tokenizer else ()
    wanted = wanted_facts(evaluation, levels)
    if any(facts.missing(item, wanted) for item in items):
        return None
    if tokenizer and any(facts.missing(item, [CODES]) for item in phone_items):
        return None
    scores: dict[Place, list[Score]] = {}
    for what in wanted:
        kind, count = kind_and_levels(what)
        found = [facts[item, what] for item in items]
        if kind == "heard":
            rated = [_rated(item, fact, evaluation) for item, fact in zip(items, found, strict=True)]
            scores["wer", count], scores["cer", count] = map(list, zip(*rated, strict=True))
        else:
            scores[kind, count] = [Score(kind, fact.value, fact.failure) for fact in found]
    phones, unaligned = _phones(tokenizer, phone_items if tokenizer else (), facts, segments)
    fingerprint = tokenizer.fingerprint if tokenizer else ORIGINAL
    return Measured(name, fingerprint, levels, scores, phones, unaligned)


def _rated(item: Item, heard: Fact, evaluation: Evaluation) -> tuple[Score, Score]:
    """Word and character error rate of a transcript."""
    if heard.failure is not None:
        return Score("wer", None, heard.failure), Score("cer", None, heard.failure)
    return error_scores(item.utterance.text, heard.value, NORMALISERS[evaluation.normaliser])


def compare(all_measured: Sequence[Measured], reference: str) -> list[dict[str, Any]]:
    """One row per tokenizer and figure: the estimate, and its difference from the reference over the same items.

    The difference is null where the reference lacks the figure, and for the reference itself. Numbers of levels are
    paired by role: the first level, and all levels.
    """
    base = next((one for one in all_measured if one.name == reference), None)
    return [row for one in all_measured for row in _rows(one, None if one is base else base)]


def _rows(measured: Measured, base: Measured | None) -> list[dict[str, Any]]:
    head = {"tokenizer": measured.name, "fingerprint": measured.fingerprint}
    rows = []
    for (measure, count), scores in measured.scores.items():
        theirs = base and base.scores.get((measure, _same_role(count, measured, base)))
        difference = theirs and _difference(scores, theirs)
        rows.append(head | _row(measure, count, _role(count, measured), summarize(scores), difference or None))
    counts = measured.counts()
    if counts is None:
        return rows
    estimates, differences = counts.estimates(), _phone_differences(measured, base)
    for measure in PHONETIC:
        estimate = replace(estimates[measure], **_failed(measured.unaligned))
        rows.append(head | _row(measure, 1, _role(1, measured), estimate, differences.get(measure)))
    return rows


def _row(measure: str, count: int, role: str, estimate: Estimate, difference: Estimate | None) -> dict[str, Any]:
    about = {"measure": measure, "levels": count, "role": role}
    return about | estimate.to_dict() | {"difference": difference and difference.to_dict()}


def _role(count: int, measured: Measured) -> str:
    """``first`` level or ``all`` levels of a tokenizer, or the ``original``."""
    return ORIGINAL if count == 0 else "first" if count == measured.levels[0] else "all"


def _same_role(count: int, measured: Measured, base: Measured) -> int | None:
    if not (base.levels and count):
        return None
    return base.levels[0] if count == measured.levels[0] else base.levels[-1]


def _difference(scores: Sequence[Score], theirs: Sequence[Score]) -> Estimate:
    weights = [one.weight for one in scores]
    return paired_difference([one.value for one in scores], [one.value for one in theirs], weights=weights)


def _phone_differences(measured: Measured, base: Measured | None) -> dict[str, Estimate]:
    common = set(measured.phones) & set(base.phones) if base else set()
    if not common:
        return {}
    missing = Counter({ONE_SIDED: len(set(measured.phones) ^ set(base.phones))})
    differences = measured.counts(common).differences(base.counts(common))
    return {name: replace(one, **_failed(+missing)) for name, one in differences.items()}


def _failed(reasons: Counter[str]) -> dict[str, Any]:
    return {"failed": reasons.total(), "reasons": tuple(reasons.most_common())}


def _phones(
    tokenizer: Tokenizer | None, items: Sequence[Item], facts: Facts, segments: dict[str, list[Segment]]
) -> tuple[dict[str, tuple[list[str], np.ndarray]], Counter[str]]:
    phones, unaligned = {}, Counter[str]()
    for item in items:
        fact = facts[item, CODES]
        if fact.failure is not None:
            unaligned[fact.failure] += 1
        elif item.name not in segments:
            unaligned["no alignment"] += 1
        else:
            codes = np.array(fact.value)
            phones[item.name] = frame_labels(segments[item.name], len(codes), tokenizer.frame_rate), codes
    return phones, unaligned


def read_phones(evaluation: Evaluation) -> dict[str, list[Segment]]:
    """The segments that an evaluation names, or none. Raises ConfigError where they cannot be read."""
    return read_segments(evaluation.phones) if evaluation.phones else {}


def item_rows(measured: Measured, items: Sequence[Item]) -> list[dict[str, Any]]:
    """One row per item and figure."""
    return [
        {"tokenizer": measured.name, "utterance": item.name, "speaker": item.utterance.speaker, "levels": count}
        | {"measure": measure, "value": score.value, "weight": score.weight, "failure": score.failure}
        for (measure, count), scores in measured.scores.items()
        for item, score in zip(items, scores, strict=True)
    ]
