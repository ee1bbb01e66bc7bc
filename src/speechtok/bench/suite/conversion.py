"""One-shot voice conversion: what one speaker says, in the voice of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtok.bench.conversion import RESYNTHESIS, SOURCE, WHOLE, Pair, pair_up, rated
from speechtok.bench.conversion import Tools as Listeners
from speechtok.bench.facts import MELODY, Fact, Facts, Item, collect
from speechtok.bench.metrics import Score
from speechtok.bench.suite.tools import absent, tools_of
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import EVERYTHING, About, Options, Place, Share, Speech, conclude
from speechtok.errors import ConfigError, NotSupportedError, SpeechtokError
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.conversion import BORROWED, checked_levels, levels_text

NAME = "conversion"
HELP = (
    "Each recording is said in the voice of another speaker's: by mixing levels, or by a vocoder that takes on voices."
    " The source itself and its own resynthesis stand beside it."
)
MEASURES = {
    "wer": Shown("WER", False),
    "cosine_to_target": Shown("voice cosine to target", True),
    "cosine_to_source": Shown("voice cosine to source", False),
    "pitch_correlation": Shown("log-F0 correlation with source", True),
}


def measure(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``.

    Raises:
        NotSupportedError: the tokenizer has no voice to exchange, the recordings have no two named speakers, or
            nothing shall listen.
        ConfigError: a package is missing.
    """
    facts, about = prepare(tokenizer, speech, folder, options), About.of(tokenizer, NAME)
    items, names = [*_joined_pairs(speech)], _names(ranges_of(tokenizer), options)
    scores = {
        Place(measure, role): [_score(measure, facts[item, what]) for item in items]
        for what, role in names.items()
        for measure in MEASURES
    }
    return conclude(about, folder, items, scores)


def prepare(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options, share: Share = EVERYTHING) -> Facts:
    """What becomes of all pairs, or of a share of them.

    Raises:
        as ``measure``.
    """
    ranges, items = ranges_of(tokenizer), _joined_pairs(speech)
    if not items:
        raise NotSupportedError("converting voices needs two named speakers among the recordings")
    listeners, names = _listeners(options), _names(ranges, options)
    roles = list(names.values())

    def work(item: Item, missing: list[str]) -> dict[str, Fact]:
        try:
            found = rated(tokenizer, items[item], ranges, listeners, roles)
        except SpeechtokError as error:
            return {what: Fact(None, f"it cannot be converted: {error}") for what in missing}
        return {what: Fact(_plain(found[names[what]])) for what in missing}

    facts, jobs = Facts(folder, tokenizer.fingerprint, share.number), [(item, list(names)) for item in items]
    collect(share.take(jobs), facts, work, f"{tokenizer.name}: {NAME}")
    return facts


def _joined_pairs(speech: Speech) -> dict[Item, Pair]:
    return {_joined(pair): pair for pair in pair_up(speech.items)}


def _names(ranges: Sequence[slice | None], options: Options) -> dict[str, str]:
    """Names of the facts of a pair, and the roles that they are about."""
    roles = [SOURCE, RESYNTHESIS, *(WHOLE if one is None else levels_text(one) for one in ranges)]
    return {f"{role}|{options.judge}|{options.voice}": role for role in roles}


def ranges_of(tokenizer: Tokenizer) -> list[slice | None]:
    """The paper's three ranges after the content levels, as far as there are: one level, three, all the others.

    A tokenizer that takes on voices has one, None: the whole voice.

    Raises:
        NotSupportedError: neither is possible.
    """
    if tokenizer.value is TextTokens:
        raise NotSupportedError(f"{tokenizer.name} gives text, which holds no voice")
    if tokenizer.voices:
        return [None]
    start = checked_levels(tokenizer).start
    stops = {min(start + count, tokenizer.levels) for count in (1, BORROWED, tokenizer.levels)}
    return [slice(start, stop) for stop in sorted(stops)]


def _listeners(options: Options) -> Listeners:
    if options.judge is None or options.voice is None:
        raise NotSupportedError("it needs a judge and a speaker network")
    lacking = absent(options)
    for kind in ("heard", "voice_cosine", MELODY):
        if kind in lacking:
            raise ConfigError(lacking[kind])
    tools = tools_of(options)
    return Listeners(tools.judge, tools.voice)


def _joined(pair: Pair) -> Item:
    """The pair as one item, said by the source's speaker."""
    source, target = pair
    return Item(f"{source.name} > {target.name}", f"{source.key} > {target.key}", source.utterance)


def _plain(scores: dict[str, Score]) -> dict[str, Sequence[Any]]:
    return {name: [one.value, one.failure, one.weight] for name, one in scores.items()}


def _score(measure: str, fact: Fact) -> Score:
    return Score(measure, None, fact.failure) if fact.failure is not None else Score(measure, *fact.value[measure])
