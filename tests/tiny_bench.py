"""A benchmark run in miniature: recordings with texts and phones, five models, a judge and a voice that are quick."""

from __future__ import annotations

import numpy as np

from speechtok.audio import Audio, read, write
from speechtok.bench import facts
from speechtok.bench.suite import cost, tools
from speechtok.cli import main
from speechtok.clips import bundled_clips
from speechtok.errors import CheckpointError, NotSupportedError
from speechtok.guidance.phones import Segment, write_segments
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from tiny import tiny_tokenizer

WORDS = ("one two three", "four five six", "seven eight nine")
SUITE = ("reconstruction", "conversion", "codes", "robustness", "cost", "invariance")
MODELS = ("a", "b", "words", "silent", "absent")


class FakeJudge:
    """Hears one word per quarter that is loud."""

    name, asked = "fake", 0

    def transcribe(self, audio):
        type(self).asked += 1
        power = [float(np.mean(part**2)) for part in np.array_split(audio.samples, 3)]
        return " ".join(word for word, loud in zip(WORDS[0].split(), power, strict=True) if loud > 1e-3)


class FakeVoice:
    """The means of four parts of the spectrum."""

    name = "fake"

    def embed(self, audio):
        parts = np.array([part.mean() for part in np.array_split(np.abs(np.fft.rfft(audio.samples)), 4)])
        return parts / np.linalg.norm(parts)


class Words(Tokenizer):
    """Text tokens of somebody who always hears the same."""

    value, scheme, name, sample_rate = TextTokens, "D", "words", 8000
    hop, codebook_sizes, semantic_levels = None, (), ()
    fingerprint = "0123456789abcdef"

    def describe(self):
        absent = {"hop": None, "frame_rate": None, "bitrate": None, "levels": 0}
        facts = {"name": self.name, "scheme": "D", "sample_rate": 8000, "fingerprint": self.fingerprint}
        return facts | absent | {"codebook_sizes": [], "semantic_levels": [], "causal": False}

    def checked_levels(self, levels):
        return 0

    def encode(self, audio, levels=None):
        count = len(audio.resample(8000))
        return TextTokens(np.arange(3), "one two three", 10, 8000, count, self.name, self.fingerprint)

    def decode(self, tokens):
        return tokens.text

    def _encode(self, samples, levels):
        raise NotSupportedError("text")

    _decode = _encode


class Silent(Tokenizer):
    """Units without a vocoder."""

    scheme, name, sample_rate, hop = "B", "silent", 8000, 80
    codebook_sizes, semantic_levels, fingerprint = (7,), (0,), "fedcba9876543210"

    def _encode(self, samples, levels):
        loud = np.add.reduceat(np.abs(samples), np.arange(0, len(samples), 80))
        return np.minimum(6, loud.astype(np.int64))[None]

    def _decode(self, codes, first_level):
        raise NotSupportedError("units have no waveform by themselves")


def load(name, device="cpu"):
    """Five models: two codecs, text, units without sound, and one that cannot be loaded."""
    if name == "absent":
        raise CheckpointError("absent: its package is missing; install it")
    if name in ("words", "silent"):
        return {"words": Words, "silent": Silent}[name]()
    tokenizer = tiny_tokenizer("frame", seed="ab".index(name))
    tokenizer.name = name
    return tokenizer


def measure_in_memory(model, seconds, repeats, device):
    """The process of the cost, without the process: it would import torch for every tiny model."""
    found = cost.measure_cost(load(model), 1.0, repeats)
    found["figures"]["peak_memory"] = [100.0]
    return found


def make_recordings(folder):
    """Excerpts of bundled clips with texts and phones; one file is broken."""
    rows, segments = ["path\tsplit\tspeaker\ttext"], {}
    for i, text in enumerate(WORDS):
        write(folder / f"{i}.wav", Audio(read(bundled_clips()[i].path).samples[8000:24000], 16000))
        rows.append(f"{i}.wav\ttest\tspeaker{i}\t{text}")
        segments[str(i)] = [Segment(0.0, 0.3, "AA"), Segment(0.3, 0.7, "S"), Segment(0.7, 1.0, "SIL")]
    (folder / "broken.wav").write_bytes(b"no audio")
    rows.append("broken.wav\ttest\tspeaker0\tten")
    (folder / "data.tsv").write_text("\n".join(rows) + "\n")
    write_segments(folder / "phones.tsv", segments)
    return folder


def patch_tools(patch):
    tools._tools.cache_clear()
    patch.setattr(facts, "load_judge", lambda name: FakeJudge())
    patch.setattr(facts, "load_encoder", lambda name: FakeVoice())
    patch.setattr(cost, "_in_process", measure_in_memory)


def command(bench, out, *more, models=MODELS):
    data = ["--data", str(bench / "data.tsv"), "--phones", str(bench / "phones.tsv")]
    tasks = [] if "--tasks" in more else ["--tasks", *SUITE]
    words = ["bench", "--quick", "-o", str(out), "--models", *models, *data, *tasks, "--utterances", "4", *more]
    return main(words, load=load)


def row_of(rows, *key, fields=("tokenizer", "measure", "role", "task")):
    (row,) = (row for row in rows if all(row[name] == value for name, value in zip(fields, key, strict=False)))
    return row


def rounded(value):
    """Without the last bits, which depend on where in memory an array lies."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: rounded(one) for key, one in pairs}
    return round(value, 9) if isinstance(value, float) else value
