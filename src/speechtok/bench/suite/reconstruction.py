"""What comes back of speech: sound, words, voice and melody from every number of levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speechtok.audio import read
from speechtok.bench.facts import MELODY, ORIGINAL, Fact, Facts, Item, Tools, collect, kind_and_levels, pair_fact
from speechtok.bench.judge import NORMALISERS, error_scores
from speechtok.bench.melody import MEASURES as MELODIES
from speechtok.bench.metrics import ASKED, METRICS, UNREADABLE, Score
from speechtok.bench.predictors import DNSMOS_SCORES, PREDICTED
from speechtok.bench.reconstruction import level_choices, reconstruct
from speechtok.bench.suite.tools import absent, silent_levels, tools_of
from speechtok.bench.tables import SHOWN, Shown
from speechtok.bench.tasks import EVERYTHING, About, Options, Place, Share, Speech, conclude, does_not_apply, level_role
from speechtok.errors import AudioError, NotSupportedError, SpeechtokError
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer

NAME = "reconstruction"
HELP = "Each recording is encoded once, decoded from 1, 2, 4, 8 and all levels, and held against itself."
MEASURES = SHOWN | {
    **{name: Shown(one.label, one.higher_is_better, one.digits) for name, one in ASKED.items()},
    "gpe": Shown("GPE", False),
    "vde": Shown("VDE", False),
    "ffe": Shown("FFE", False),
    "pitch_correlation": Shown("log-F0 correlation", True),
    "dnsmos_overall": Shown("predicted: DNSMOS overall", True, 2),
    "dnsmos_signal": Shown("predicted: DNSMOS signal", True, 2),
    "dnsmos_background": Shown("predicted: DNSMOS background", True, 2),
    "dnsmos_p808": Shown("predicted: DNSMOS P.808", True, 2),
}
WORDS = ("wer", "cer")
SAID = "said"
"""The fact that holds the text which text tokens are."""
SEVERAL = {"heard": WORDS, SAID: WORDS, MELODY: tuple(MELODIES), PREDICTED: tuple(DNSMOS_SCORES)}
"""Kinds of facts that make several figures."""


class Wanted(NamedTuple):
    """What is measured of a tokenizer."""

    counts: tuple[int, ...]
    """Numbers of levels to decode from; 0 where there are none."""
    refused: dict[int, str]
    """Those that have no sound, with the reason."""
    kinds: list[str]
    lacking: dict[str, str]
    """Kinds that cannot be measured on this machine, with the reason."""

    @classmethod
    def of(cls, tokenizer: Tokenizer | None, options: Options) -> Wanted:
        """Tries half a second of speech to see which numbers of levels have sound."""
        return cls(*_counts(tokenizer, options), _kinds(tokenizer, options), absent(options))

    @property
    def facts(self) -> list[str]:
        """Names of the facts of an utterance."""
        return [f"{kind}@{count}" for count in self.counts for kind in self.kinds if _plain(kind) not in self.lacking]


def measure(tokenizer: Tokenizer | None, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``. Of the recordings themselves (None), the judge's error rates.

    Raises:
        NotSupportedError: the tokens have no sound, and are no text.
    """
    about, wanted = _about(tokenizer), Wanted.of(tokenizer, options)
    facts = _collected(tokenizer, speech, folder, options, wanted, EVERYTHING)
    scores: dict[Place, list[Score]] = {}
    for count in wanted.counts:
        for kind in wanted.kinds:
            found = [
                _scores(kind, item, wanted.lacking.get(_plain(kind)) or facts[item, f"{kind}@{count}"], options)
                for item in speech.items
            ]
            for name in found[0]:
                scores[_place(name, count, tokenizer)] = [one[name] for one in found]
    return conclude(about, folder, speech.items, scores) + [
        does_not_apply(about, reason, role=level_role(count, tokenizer.levels))
        for count, reason in wanted.refused.items()
    ]


def prepare(tokenizer: Tokenizer | None, speech: Speech, folder: Path, options: Options, share: Share) -> None:
    """Measure a share of the recordings.

    Raises:
        as ``measure``.
    """
    _collected(tokenizer, speech, folder, options, Wanted.of(tokenizer, options), share)


def _collected(
    tokenizer: Tokenizer | None, speech: Speech, folder: Path, options: Options, wanted: Wanted, share: Share
) -> Facts:
    about = _about(tokenizer)
    facts, work = Facts(folder, about.fingerprint, share.number), _work(tokenizer, tools_of(options))
    jobs = [(item, wanted.facts) for item in share.take(speech.items)]
    collect(jobs, facts, work, f"{about.tokenizer}: {NAME}")
    return facts


def _about(tokenizer: Tokenizer | None) -> About:
    return About.of(tokenizer, NAME) if tokenizer else About(ORIGINAL, ORIGINAL, task=NAME)


def _counts(tokenizer: Tokenizer | None, options: Options) -> tuple[tuple[int, ...], dict[int, str]]:
    """Numbers of levels to decode from, and those of them that have no sound, with the reason."""
    if tokenizer is None or tokenizer.value is TextTokens:
        return (0,), {}
    counts = level_choices(options.levels, tokenizer)
    refused = silent_levels(tokenizer, counts)
    if len(refused) == len(counts):
        raise NotSupportedError(refused[counts[-1]])
    return tuple(count for count in counts if count not in refused), refused


def _kinds(tokenizer: Tokenizer | None, options: Options) -> list[str]:
    """What is measured, as facts are named."""
    heard = [f"heard:{options.judge}"] if options.judge else []
    predicted = [f"{PREDICTED}:{name}" for name in options.predictors]
    if tokenizer is None:
        return heard + predicted
    if tokenizer.value is TextTokens:
        return [SAID]
    voiced = [f"voice_cosine:{options.voice}"] if options.voice else []
    return [*METRICS, *options.asked, MELODY, *voiced, *heard, *predicted]


def _plain(kind: str) -> str:
    return kind.partition(":")[0]


def _place(measure: str, count: int, tokenizer: Tokenizer | None) -> Place:
    if tokenizer is None:
        return Place(measure, ORIGINAL)
    return Place(measure, level_role(count, tokenizer.levels), count or None)


def _work(tokenizer: Tokenizer | None, tools: Tools) -> Callable[[Item, list[str]], dict[str, Fact]]:
    def work(item: Item, missing: list[str]) -> dict[str, Fact]:
        try:
            return _facts_of(tokenizer, item, missing, tools)
        except AudioError:
            return {what: Fact(None, UNREADABLE) for what in missing}
        except SpeechtokError as error:
            return {what: Fact(None, f"it cannot be reconstructed: {error}") for what in missing}

    return work


def _facts_of(tokenizer: Tokenizer | None, item: Item, missing: Sequence[str], tools: Tools) -> dict[str, Fact]:
    original = read(item.utterance.path)
    if tokenizer is None:
        return {what: pair_fact(what, original, original, tools) for what in missing}
    if tokenizer.value is TextTokens:
        text = tokenizer.encode(original).text
        return {what: Fact(text) for what in missing}
    result = reconstruct(tokenizer, original, {kind_and_levels(what)[1] for what in missing})
    return {what: pair_fact(what, result.original, result.decoded[kind_and_levels(what)[1]], tools) for what in missing}


def _scores(kind: str, item: Item, fact: Fact | str, options: Options) -> dict[str, Score]:
    """The scores that a fact holds, by measure; a text in its place says why there is no such fact."""
    name = _plain(kind)
    names = SEVERAL.get(name, (name,))
    failure = fact if isinstance(fact, str) else fact.failure
    if failure is not None:
        return {one: Score(one, None, failure) for one in names}
    if names is WORDS:
        rates = error_scores(item.utterance.text, fact.value, NORMALISERS[options.normaliser])
        return dict(zip(names, rates, strict=True))
    if name in (MELODY, PREDICTED):
        return {one: Score(one, *fact.value[one]) for one in names}
    return {name: Score(name, fact.value)}
