"""Speech tokens with their text: what recognisers, speakers and the chain of both learn from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

from speechtok.audio import Audio, probe
from speechtok.chain.text import TextVocabulary
from speechtok.checks import smallest_type
from speechtok.errors import AudioError, ConfigError
from speechtok.guidance.writing import plain
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.data import Utterance, WaveStore, evenly, identity
from speechtok.train.tracks import Track
from speechtok.train.transcripts import utterances_of

NO_TEXT = "without transcript"


@dataclass
class Pairs:
    """Utterances as semantic codes and text, side by side."""

    rate: float
    """Frames per second."""
    fingerprint: str
    """Of the tokenizer that made the codes."""
    vocabulary: TextVocabulary
    names: list[str] = field(default_factory=list)
    """As ``speechtok align`` writes them."""
    speakers: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """In the plain form."""
    codes: list[np.ndarray] = field(default_factory=list)
    """int64 ``[Q, N]`` of each."""
    text: list[np.ndarray] = field(default_factory=list)
    """int64 ``[L]`` of each, numbers of the vocabulary, without specials."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each."""
        return np.array([one.shape[1] for one in self.codes], np.int64)

    @property
    def seconds(self) -> float:
        """Of all together."""
        return float(self.lengths.sum()) / self.rate

    @property
    def digest(self) -> str:
        """Of everything that is learned from: codes, text, speakers."""
        about = [self.fingerprint, self.vocabulary.digest, self.texts, self.speakers, self.lengths.tolist()]
        digest = hashlib.sha256(json.dumps(about).encode())
        for codes in self.codes:
            digest.update(codes.astype("<i8").tobytes())
        return digest.hexdigest()

    @classmethod
    def build(
        cls,
        manifests: Sequence[str],
        split: str,
        tokenizer: Tokenizer,
        vocabulary: TextVocabulary,
        cache: str | Path,
        levels: int = 1,
        longest: float = 30.0,
        limit: int = 0,
        speeds: Sequence[float] = (1.0,),
        tell: bool = True,
    ) -> Pairs:
        """The rows of a split whose text can be written; codes are made once and kept in ``cache``.

        Args:
            levels: the first so many of the tokenizer; those of its first level are the semantic ones.
            longest: seconds; what lasts longer is left out.
            limit: most utterances, spread evenly over the split; 0 takes all. With a limit only those are encoded.
            speeds: as often every utterance is there, each time played so much faster, by a speaker of its own.
            tell: print one line that says how many there are, and why others are left out.

        Raises:
            AudioError: a file that cannot be read.
            ConfigError: a manifest cannot be read, nothing of it can be used, or the tokenizer has fewer levels.
            OutputError: the cache cannot be written.
        """
        levels = tokenizer.checked_levels(levels)
        named = [row for row in utterances_of(manifests, split) if plain(row[1].text)]
        left: Counter[str] = Counter({NO_TEXT: len(utterances_of(manifests, split)) - len(named)})
        if limit:
            usable = [row for row in named if not _text_fault(row[1], vocabulary) and _seconds(row[1]) <= longest]
            named = [usable[place] for place in evenly(len(usable), limit)] if usable else []
        if not named:
            raise ConfigError(f"{', '.join(manifests)}: no utterance of split {split!r} can be used; none has a text")
        found = cls(tokenizer.frame_rate, tokenizer.fingerprint, vocabulary)
        for speed in speeds:
            track = codes_of(tokenizer, [utterance for _, utterance in named], levels, cache, speed)
            for index, (name, utterance) in enumerate(named):
                codes = track[index]
                fault = _text_fault(utterance, vocabulary)
                if fault is None and len(codes) > longest * found.rate:
                    fault = f"longer than {longest:g} s"
                if fault is not None:
                    left[fault] += 1
                    continue
                found.names.append(_played(name, speed))
                found.speakers.append(_played(utterance.speaker, speed))
                found.texts.append(plain(utterance.text))
                found.codes.append(codes.T.astype(np.int64))
                found.text.append(np.array(vocabulary.encode(utterance.text), np.int64))
        said = "".join(f"; {count} left out: {reason}" for reason, count in left.most_common() if count)
        if not len(found):
            raise ConfigError(f"no utterance of split {split!r} can be used{said}; correct section data of the recipe")
        if tell:
            print(f"{split}: {len(found)} utterances, {found.seconds / 3600:.2f} h{said}", flush=True)
        return found

    def joined(self, other: Pairs) -> Pairs:
        """These utterances and those of another corpus behind them, of the same tokenizer and vocabulary."""
        names = ("names", "speakers", "texts", "codes", "text")
        lists = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Pairs(self.rate, self.fingerprint, self.vocabulary, **lists)


def codes_of(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], levels: int, cache: str | Path, speed: float = 1.0
) -> Track:
    """Codes ``[N, Q]`` of every utterance, played ``speed`` times as fast, with pitch and formants as much higher;
    made once.

    Raises:
        AudioError, OutputError: as for ``Pairs.build``.
    """
    store = WaveStore.build(utterances, tokenizer.sample_rate, cache)
    kind = smallest_type(max(tokenizer.codebook_sizes[:levels]) - 1)

    def rows_of(wave: np.ndarray) -> np.ndarray:
        played = wave if speed == 1 else soxr.resample(wave, speed, 1.0)
        return tokenizer.encode(Audio(played, tokenizer.sample_rate), levels).codes.T.astype(kind)

    # lengths alone do not tell files apart, such as those of a corpus and of the same with noise
    names = hashlib.sha256(json.dumps([identity(utterance.path) for utterance in utterances]).encode()).hexdigest()
    what = [tokenizer.fingerprint, levels, names] + ([] if speed == 1 else [speed])
    return Track.build(store, what, tokenizer.hop, rows_of, cache)


def texts_of(manifests: Sequence[str], split: str) -> list[str]:
    """Texts of a split in the plain form, those that have any: what a vocabulary is learned from.

    Raises:
        ConfigError: a manifest cannot be read.
    """
    return [text for _, utterance in utterances_of(manifests, split) if (text := plain(utterance.text))]


def _played(name: str, speed: float) -> str:
    return name if speed == 1 or not name else f"{name}@{speed:g}"


def _text_fault(utterance: Utterance, vocabulary: TextVocabulary) -> str | None:
    return "with symbols that the vocabulary lacks" if vocabulary.unknown(utterance.text) else None


def _seconds(utterance: Utterance) -> float:
    try:
        return probe(utterance.path).seconds
    except AudioError:
        return 0.0
