"""What was said in a crop: aligned phones, or the characters of whole utterances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtok.errors import ConfigError
from speechtok.guidance.phones import SILENCE, STEP, Segment, frame_labels, read_segments, utterance_name
from speechtok.guidance.pronounce import words_of
from speechtok.nn.hubert import RATE
from speechtok.train.data import Utterance, read_manifest

PHONES = (
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""The 39 of ``speechtok align``."""
CHARACTERS = ("|", "'", *"abcdefghijklmnopqrstuvwxyz")
"""Between words, and in them."""
BLANK = ""
"""CTC's class 0; in frame-wise classification silence has its place."""


@dataclass(frozen=True)
class Spoken:
    """One utterance."""

    symbols: np.ndarray
    """Class of every phone or character, silences left out, from 1."""
    middles: np.ndarray
    """When each is spoken, in seconds."""
    steps: np.ndarray
    """Class of every 10 ms, 0 in silence; empty for characters."""

    def between(self, start: float, end: float) -> np.ndarray:
        """Symbols that are spoken between two times."""
        return self.symbols[(self.middles >= start) & (self.middles < end)]

    def frames(self, times: np.ndarray) -> np.ndarray:
        """Classes at these times in seconds, 0 beyond the end."""
        places = np.floor(times / STEP + 1e-6).astype(np.int64)
        inside = places < len(self.steps)
        found = np.zeros(len(times), np.int64)
        found[inside] = self.steps[places[inside]]
        return found


def spoken_phones(segments: Sequence[Segment], samples: int) -> Spoken:
    """Of the segments of an utterance of so many samples.

    Raises:
        ConfigError: a phone that is none of ``PHONES``.
    """
    numbers = {SILENCE: 0} | {phone: i for i, phone in enumerate(PHONES, 1)}
    strange = sorted({segment.phone for segment in segments} - set(numbers))
    if strange:
        raise ConfigError(f"phone {strange[0]!r} is none of the {len(PHONES)} that speechtok align writes")
    heard = [segment for segment in segments if segment.phone != SILENCE]
    labels = frame_labels(segments, int(samples / RATE / STEP), 1 / STEP)
    return Spoken(
        np.array([numbers[segment.phone] for segment in heard], np.int64),
        np.array([(segment.start + segment.end) / 2 for segment in heard]),
        np.array([numbers[label] for label in labels], np.uint8),
    )


def spoken_characters(text: str) -> Spoken | None:
    """Of a transcript; None where it is empty or has letters that are not English. All are spoken at time 0."""
    text = "|".join(words_of(text))
    if not text or set(text) - set(CHARACTERS):
        return None
    symbols = np.array([CHARACTERS.index(letter) + 1 for letter in text], np.int64)
    return Spoken(symbols, np.zeros(len(symbols)), np.zeros(0, np.uint8))


def utterances_of(manifests: Sequence[str], split: str) -> list[tuple[str, Utterance]]:
    """Rows of several manifests in the order of ``data.pooled``, each with its name in a file of segments."""
    return [(utterance_name(u.path, Path(m).parent), u) for m in manifests for u in read_manifest(m, split)]


def phones_of(
    named: Sequence[tuple[str, Utterance]], lengths: np.ndarray, segments: Mapping[str, Sequence[Segment]]
) -> list[Spoken | None]:
    """Phones of every utterance; None for those without segments."""
    pairs = zip(named, lengths, strict=True)
    return [spoken_phones(segments[name], int(n)) if name in segments else None for (name, _), n in pairs]


def characters_of(named: Sequence[tuple[str, Utterance]], lengths: np.ndarray, longest: int) -> list[Spoken | None]:
    """Characters of every utterance of at most ``longest`` samples; None for the others."""
    pairs = zip(named, lengths, strict=True)
    return [spoken_characters(utterance.text) if n <= longest else None for (_, utterance), n in pairs]


def read_alignments(paths: Sequence[str]) -> dict[str, list[Segment]]:
    """All segments of several files of ``speechtok align``.

    Raises:
        ConfigError: one of them cannot be read.
    """
    found: dict[str, list[Segment]] = {}
    for path in paths:
        found |= read_segments(path)
    return found
