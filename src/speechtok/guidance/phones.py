"""Phones of transcribed speech in time, by forced alignment with PocketSphinx and its bundled English model.

The model's 39 ARPABET phones without stress, and ``SIL``; noises count as ``SIL``. Times are multiples of 10 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speechtok.audio import Audio
from speechtok.errors import ConfigError, SpeechtokError
from speechtok.files import StrPath, write_text_atomic
from speechtok.guidance.pronounce import pronounce, words_of

RATE = 16000
SILENCE = "SIL"
STEP = 0.01
"""Seconds: the acoustic model's step, and with it the precision of every boundary."""
COLUMNS = ("id", "start", "end", "phone")


class AlignmentError(SpeechtokError):
    """An utterance whose phones cannot be found: no transcript, an unknown word, or speech that does not fit it."""


class Segment(NamedTuple):
    """One phone, from ``start`` to ``end`` in seconds."""

    start: float
    end: float
    phone: str


class PhoneAligner:
    """Aligns one utterance after the other; results do not depend on their order.

    Args:
        build_unknown: put words that the dictionary lacks together from parts that it has.

    Raises:
        ConfigError: PocketSphinx is not installed.
    """

    def __init__(self, build_unknown: bool = True):
        try:
            import pocketsphinx
        except ImportError as error:
            raise ConfigError("phone alignment needs pocketsphinx; pip install 'speechtok[align]'") from error
        # Its search for the best path through the lattice drops short silences and then fails on some utterances,
        # and live normalisation carries the level of one utterance into the next.
        self._decoder: Any = pocketsphinx.Decoder(lm=None, bestpath=False, cmn="batch", loglevel="FATAL")
        self._built: set[str] = set()
        self.build_unknown = build_unknown

    def align(self, audio: Audio, text: str) -> list[Segment]:
        """Segments that cover the utterance from its first frame to its last, in order and without gaps.

        Raises:
            AlignmentError: why this utterance has none.
        """
        words = words_of(text)
        if not words:
            raise AlignmentError("no transcript")
        unknown = sorted({word for word in words if not self._know(word)})
        if unknown:
            raise AlignmentError(f"not in the dictionary: {' '.join(unknown)}")
        pcm = pcm16(audio.resample(RATE).samples)
        try:
            self._decoder.reinit_feat()  # or the front end carries something of the last utterance into this one
            self._decoder.set_align_text(" ".join(words))
            self._decode(pcm)
            if self._decoder.hyp() is None:
                raise AlignmentError("the speech does not fit the transcript")
            self._decoder.set_alignment()  # the second pass, which finds the phones inside the words
            self._decode(pcm)
            entries = [phone for word in self._decoder.get_alignment() for phone in word]
        except RuntimeError as error:
            raise AlignmentError(f"the speech does not fit the transcript ({error})") from error
        return _segments([(entry.name, entry.start, entry.duration) for entry in entries])

    def _know(self, word: str) -> bool:
        """True where the decoder can say the word; one that can be built is added to its dictionary."""
        if self._decoder.lookup_word(word):
            return True
        phones = pronounce(word, self._published) if self.build_unknown else None
        if phones:
            self._decoder.add_word(word, phones)
            self._built.add(word)
        return phones is not None

    def _published(self, word: str) -> str | None:
        """What the dictionary says without the words added to it, so that no utterance depends on earlier ones."""
        return None if word in self._built else self._decoder.lookup_word(word)

    def _decode(self, pcm: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()


def pcm16(samples: np.ndarray) -> bytes:
    """``samples[T]`` as little-endian 16-bit integers, which PocketSphinx reads."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def _segments(entries: Iterable[tuple[str, int, int]]) -> list[Segment]:
    """Times from frame numbers; noises and neighbouring silences become one silence."""
    found: list[Segment] = []
    for name, first, count in entries:
        phone = SILENCE if name.startswith("+") else name
        start, end = round(first * STEP, 2), round((first + count) * STEP, 2)
        if found and found[-1].phone == phone == SILENCE:
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(Segment(start, end, phone))
    return found


def frame_labels(segments: Sequence[Segment], frames: int, frame_rate: float) -> list[str]:
    """The phone in the middle of each of ``frames`` frames; silence outside the segments."""
    starts = np.array([segment.start for segment in segments])
    middles = (np.arange(frames) + 0.5) / frame_rate
    places = np.searchsorted(starts, middles + 1e-9, side="right") - 1
    return [
        segments[place].phone if place >= 0 and middle < segments[place].end else SILENCE
        for place, middle in zip(places, middles, strict=True)
    ]


def utterance_name(path: Path, folder: Path) -> str:
    """Under which ``path`` of a manifest in ``folder`` has its segments.

    The path as the manifest writes it, without its suffix and without what leads out of a folder.
    """
    inner = path.relative_to(folder) if path.is_relative_to(folder) else path.relative_to(path.anchor)
    return Path(*(part for part in inner.parts if part != "..")).with_suffix("").as_posix()


def write_segments(path: StrPath, utterances: Mapping[str, Sequence[Segment]]) -> None:
    """Segments by utterance as tab-separated ``id start end phone``, written whole or not at all."""
    rows = (f"{name}\t{s.start:.2f}\t{s.end:.2f}\t{s.phone}\n" for name, found in utterances.items() for s in found)
    write_text_atomic(path, "\t".join(COLUMNS) + "\n" + "".join(rows))


def read_segments(path: StrPath) -> dict[str, list[Segment]]:
    """Inverse of ``write_segments``.

    Raises:
        ConfigError: no such file, or another format.
    """
    found: dict[str, list[Segment]] = {}
    try:
        header, *rows = Path(path).read_text(encoding="utf-8").splitlines() or [""]
        if tuple(header.split("\t")) != COLUMNS:
            raise ValueError(f"the first line must be {' '.join(COLUMNS)}")
        for row in rows:
            utterance, start, end, phone = row.split("\t")
            found.setdefault(utterance, []).append(Segment(float(start), float(end), phone))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as phone segments ({error}); run speechtok align again") from error
    return found
