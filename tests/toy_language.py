"""A language of three letters, each a tone, spoken loudly or softly; and tokenizers that hear it or do not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from speechtok.guidance.phones import Segment, write_segments
from speechtok.tokenizers.base import Tokenizer

RATE, HOP, FRAMES = 8000, 320, 4
LETTERS = {"a": 3, "b": 6, "c": 9}
"""Cycles of each letter's tone in a frame."""
SOUNDS = {"a": "AA", "b": "B", "c": "S"}


class Tones(Tokenizer):
    """Level 0: the tone of each frame, 0 in silence. Level 1: how loud it is, 0 to 2. ``deaf``: both are noise."""

    scheme, sample_rate, hop, codebook_sizes, semantic_levels = "A", RATE, HOP, (10, 3), (0,)

    def __init__(self, deaf: bool = False):
        self.deaf, self.name = deaf, "deaf" if deaf else "tones"

    @property
    def fingerprint(self) -> str:
        return self.name * 2

    def _encode(self, samples: np.ndarray, levels: int) -> np.ndarray:
        frames = np.pad(samples, (0, -len(samples) % HOP)).reshape(-1, HOP)
        if self.deaf:
            draws = np.random.default_rng(int(1e6 * np.abs(samples).sum()))
            return np.stack([draws.integers(size, size=len(frames)) for size in self.codebook_sizes[:levels]])
        spectrum = np.abs(np.fft.rfft(frames, axis=1))
        height = spectrum.max(1)
        tone = np.where(height > 1, spectrum.argmax(1), 0).clip(max=9)
        return np.stack([tone, np.digitize(height, [1, 40])])[:levels]

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        return np.zeros(codes.shape[1] * HOP, np.float32)


def say(text: str, loudness: float) -> np.ndarray:
    """A frame of silence before every letter, two for a space."""
    time, parts = np.arange((FRAMES - 1) * HOP) / HOP, []
    for letter in text:
        tone = loudness * np.sin(2 * np.pi * LETTERS[letter] * time) if letter in LETTERS else np.zeros(HOP)
        parts += [np.zeros(HOP), tone]
    return np.concatenate(parts)


def write_corpus(folder: Path, counts: tuple[int, int, int] = (48, 12, 12)) -> Path:
    """A manifest of random words with the columns of the shared corpora, and ``phones.tsv`` beside it."""
    draws, aligned = np.random.default_rng(0), {}
    rows = ["path\tsplit\tspeaker\tseconds\ttext\tkeyword\tslots"]
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        for i in range(count):
            words = ["".join(draws.choice([*LETTERS], draws.integers(1, 4))) for _ in range(draws.integers(1, 3))]
            text, speaker = " ".join(words), "loud" if i % 2 else "soft"
            name, wave = f"{split}-{i}", say(text, {"loud": 0.6, "soft": 0.1}[speaker])
            soundfile.write(folder / f"{name}.wav", wave, RATE)
            slots = json.dumps({"drink": "tea" if text[0] == "a" else "milk"})
            rows.append(f"{name}.wav\t{split}\t{speaker}\t{len(wave) / RATE}\t{text}\t{text[0]}\t{slots}")
            aligned[name] = _segments(text)
    (folder / "toy.tsv").write_text("\n".join(rows) + "\n")
    write_segments(folder / "phones.tsv", aligned)
    return folder / "toy.tsv"


def _segments(text: str) -> list[Segment]:
    found, time, frame = [], 0.0, HOP / RATE
    for letter in text:
        found.append(Segment(time, time + frame, "SIL"))
        length = (FRAMES - 1) * frame if letter in LETTERS else frame
        found.append(Segment(time + frame, time + frame + length, SOUNDS.get(letter, "SIL")))
        time += frame + length
    return found
