"""How steady tokens are: the edit distance between those of a recording and those of the same, slightly disturbed.

Source: the unit edit distance of Gat et al. 2023, over tokens whose runs are said once: Levenshtein distance by the
tokens of the undisturbed recording. It says nothing about quality: a tokenizer may keep what another rightly ignores.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechtok.audio import Audio, read
from speechtok.bench.facts import Fact, Facts, Item, collect
from speechtok.bench.metrics import UNREADABLE, MetricError, Score
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import EVERYTHING, About, Options, Place, Share, Speech, conclude
from speechtok.errors import AudioError, ConfigError, NotSupportedError, SpeechtokError
from speechtok.layouts.runs import run_lengths
from speechtok.text_tokens import TextTokens
from speechtok.tokenfile import TokenValue
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens

NAME = "robustness"
HELP = "Unit edit distance between the tokens of a recording and those of the same recording, slightly disturbed."
UNITS, FRAMES = "unit_edit_distance", "frame_edit_distance"
MEASURES = {UNITS: Shown("unit edit distance", False), FRAMES: Shown("frame edit distance", False)}
COLUMNS = "role"
"""What makes the columns of its table: the disturbances."""
OTHER_RATE = 44100
"""Hz, to which and back again the recording is resampled."""


def measure(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options) -> list[dict[str, Any]]:
    """See ``tasks``. Of the first level, or of text; and of all levels, whose frames count as one token each.

    Raises:
        NotSupportedError: the tokens are continuous.
        ConfigError: rapidfuzz is not installed.
    """
    facts, about = prepare(tokenizer, speech, folder, options), About.of(tokenizer, NAME)
    scores = {
        place: [_score(place.measure, facts[item, what]) for item in speech.items]
        for what, place in _wanted(tokenizer).items()
    }
    return conclude(about, folder, speech.items, scores)


def prepare(tokenizer: Tokenizer, speech: Speech, folder: Path, options: Options, share: Share = EVERYTHING) -> Facts:
    """The distances of all recordings, or of a share of them.

    Raises:
        as ``measure``.
    """
    if not issubclass(tokenizer.value, Tokens | TextTokens):
        raise NotSupportedError(f"{tokenizer.name} gives continuous tokens, which have no edit distance")
    _distance("a", "b")  # says what is missing before any work
    facts, wanted = Facts(folder, tokenizer.fingerprint, share.number), [*_wanted(tokenizer)]

    def work(item: Item, missing: list[str]) -> dict[str, Fact]:
        try:
            return _distances(tokenizer, item, missing)
        except AudioError:
            return {what: Fact(None, UNREADABLE) for what in missing}
        except SpeechtokError as error:
            return {what: Fact(None, f"it cannot be encoded: {error}") for what in missing}

    jobs = [(item, wanted) for item in share.take(speech.items)]
    collect(jobs, facts, work, f"{tokenizer.name}: {NAME}")
    return facts


def _wanted(tokenizer: Tokenizer) -> dict[str, Place]:
    """Names of the facts, and the figures that they are."""
    counts = sorted({1, tokenizer.levels}) if tokenizer.levels else [0]
    return {
        f"{name}@{count}": Place(FRAMES if count > 1 else UNITS, name, count or None)
        for name in DISTURBANCES
        for count in counts
    }


def unit_edit_distance(clean: Sequence[Hashable], disturbed: Sequence[Hashable]) -> float:
    """Levenshtein distance by the length of ``clean``: 0 for equal sequences, above 1 where much is inserted.

    Raises:
        MetricError: ``clean`` is empty.
        ConfigError: rapidfuzz is not installed.
    """
    if not len(clean):
        raise MetricError("the undisturbed recording has no tokens")
    return _distance(clean, disturbed) / len(clean)


def _distance(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ConfigError("edit distances need rapidfuzz; pip install 'speechtok[bench]'") from error
    return Levenshtein.distance(first, second)


def _distances(tokenizer: Tokenizer, item: Item, missing: Sequence[str]) -> dict[str, Fact]:
    clean = read(item.utterance.path).resample(tokenizer.sample_rate)
    random = np.random.default_rng(zlib.crc32(item.key.encode()))  # the same noise for every tokenizer and run
    clean_tokens, found = tokenizer.encode(clean), {}
    for name, disturb in DISTURBANCES.items():
        whats = [what for what in missing if what.rpartition("@")[0] == name]
        samples = disturb(clean, tokenizer, random)
        tokens = tokenizer.encode(Audio(samples, clean.rate)) if whats else None
        for what in whats:
            count = int(what.rpartition("@")[2])
            try:
                found[what] = Fact(unit_edit_distance(_units(clean_tokens, count), _units(tokens, count)))
            except MetricError as error:
                found[what] = Fact(None, str(error))
    return found


def _units(tokens: TokenValue, count: int) -> list[Hashable]:
    """Text ids, or the runs of the first ``count`` levels, each frame as one unit."""
    if not isinstance(tokens, Tokens):
        return tokens.payload.tolist()
    return [tuple(frame) for frame in run_lengths(tokens.codes[:count])[0].T.tolist()]


def _score(measure: str, fact: Fact) -> Score:
    return Score(measure, fact.value, fact.failure)


# -- disturbances: (recording at the tokenizer's rate, tokenizer, random numbers) -> samples ------------------------


def _noise(decibels: float) -> Callable[[Audio, Tokenizer, np.random.Generator], np.ndarray]:
    """White noise so many decibels below the recording."""

    def disturb(audio: Audio, tokenizer: Tokenizer, random: np.random.Generator) -> np.ndarray:
        noise = random.standard_normal(len(audio))
        loudness = np.sqrt(np.mean(audio.samples.astype(np.float64) ** 2))
        return (audio.samples + loudness * 10 ** (-decibels / 20) * noise).astype(np.float32)

    return disturb


def _gain(audio: Audio, tokenizer: Tokenizer, random: np.random.Generator) -> np.ndarray:
    return audio.samples * np.float32(10 ** (-6 / 20))


def _resampled(audio: Audio, tokenizer: Tokenizer, random: np.random.Generator) -> np.ndarray:
    there_and_back = audio.resample(OTHER_RATE).resample(audio.rate).samples
    return there_and_back[: len(audio)]


def _shifted(audio: Audio, tokenizer: Tokenizer, random: np.random.Generator) -> np.ndarray:
    """Half a frame later, 10 ms where there are no frames; a recording shorter than that stays as it is."""
    late = (tokenizer.hop or audio.rate // 50) // 2
    return audio.samples[late:] if len(audio) > late else audio.samples


DISTURBANCES: dict[str, Callable[[Audio, Tokenizer, np.random.Generator], np.ndarray]] = {
    "noise, 20 dB SNR": _noise(20),
    "noise, 10 dB SNR": _noise(10),
    "gain, -6 dB": _gain,
    "resampled": _resampled,
    "half a frame later": _shifted,
}
