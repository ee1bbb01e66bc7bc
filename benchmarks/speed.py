"""Encoding and decoding speed beside EnCodec 24 kHz, on the same audio, threads and run.

    pip install 'speechtok[transformers]'
    python benchmarks/speed.py --threads 2 -o speed.json

EnCodec is the implementation of ``transformers`` at 6 kbit/s with random weights: speed does not depend on them.
The models take turns, so that a busy machine slows both; medians are compared. Resampling is not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

import speechtok
from speechtok.audio import Audio
from speechtok.bench.reconstruction import versions
from speechtok.demo import bundled_clips
from speechtok.errors import ConfigError, SpeechtokError
from speechtok.files import write_text_atomic

BANDWIDTH = 6.0  # kbit/s, 8 of EnCodec's codebooks: the setting that papers on speech tokens compare with


@dataclass
class Contestant:
    """A model with its audio at hand: ``encode(i)`` gives what ``decode`` takes."""

    name: str
    encode: Callable[[int], object]
    decode: Callable[[object], object]
    encode_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)

    def turn(self, clip: int, timed: bool) -> None:
        """One clip there and back."""
        started = time.perf_counter()
        codes = self.encode(clip)
        between = time.perf_counter()
        self.decode(codes)
        if timed:
            self.encode_seconds.append(between - started)
            self.decode_seconds.append(time.perf_counter() - between)

    def speeds(self, seconds: float) -> dict[str, float]:
        """Times real time: medians over all turns."""
        both = [a + b for a, b in zip(self.encode_seconds, self.decode_seconds, strict=True)]
        times = {"encode": self.encode_seconds, "decode": self.decode_seconds, "both": both}
        return {name: seconds / statistics.median(values) for name, values in times.items()}


def clips(count: int, seconds: float, rate: int) -> list[Audio]:
    """Different stretches of the bundled recordings, end to end, each exactly so long."""
    speech = np.concatenate([speechtok.read(clip.path, rate).samples for clip in bundled_clips()])
    length = round(seconds * rate)
    starts = np.linspace(0, len(speech), count, endpoint=False).astype(int)
    return [Audio(speech[(start + np.arange(length)) % len(speech)], rate) for start in starts]


def ours(model: str | None, count: int, seconds: float) -> Contestant:
    """A speechtok tokenizer, used as anybody would."""
    tokenizer = speechtok.load(model)
    audios = clips(count, seconds, tokenizer.sample_rate)
    return Contestant(tokenizer.name, lambda i: tokenizer.encode(audios[i]), tokenizer.decode)


def encodec(count: int, seconds: float) -> Contestant:
    """EnCodec 24 kHz of ``transformers``."""
    try:
        from transformers import EncodecConfig, EncodecModel
    except ImportError as error:
        raise ConfigError("transformers is not installed; run: pip install 'speechtok[transformers]'") from error
    torch.manual_seed(0)
    model = EncodecModel(EncodecConfig()).eval()
    waves = [torch.tensor(audio.samples)[None, None] for audio in clips(count, seconds, model.config.sampling_rate)]

    @torch.inference_mode()
    def encode(clip: int) -> object:
        return model.encode(waves[clip], bandwidth=BANDWIDTH)

    @torch.inference_mode()
    def decode(encoded: object) -> torch.Tensor:
        return model.decode(encoded.audio_codes, encoded.audio_scales)[0]

    return Contestant(f"EnCodec 24 kHz, {BANDWIDTH:g} kbit/s (transformers)", encode, decode)


def compare(contestants: Sequence[Contestant], count: int, seconds: float, repeats: int) -> list[dict]:
    """Every contestant on every clip in turn, ``repeats`` times after one round that is not timed."""
    for repeat in range(repeats + 1):
        for clip in range(count):
            for contestant in contestants:
                contestant.turn(clip, timed=repeat > 0)
    return [{"model": one.name, **one.speeds(seconds)} for one in contestants]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a name of `speechtok models`, a folder or a Hub id (default: bundled model)")
    parser.add_argument("--threads", type=int, help="threads of both models (default: as many as torch takes)")
    parser.add_argument("--clips", type=int, default=4, help="different clips")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each clip")
    parser.add_argument("--repeats", type=int, default=3, help="rounds over all clips")
    parser.add_argument("-o", "--output", help="JSON with speeds, ratios, settings and versions")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        contestants = [ours(options.model, options.clips, options.seconds), encodec(options.clips, options.seconds)]
        rows = compare(contestants, options.clips, options.seconds, options.repeats)
        ratio = {name: rows[0][name] / rows[1][name] for name in ("encode", "decode", "both")}
        for row in [*rows, {"model": "ratio", **ratio}]:
            print(f"{row['model']:<42} encode {row['encode']:7.1f}   decode {row['decode']:7.1f}   "
                  f"both {row['both']:7.1f}")  # fmt: skip
        print(f"times real time, medians of {options.clips * options.repeats} turns, "
              f"{torch.get_num_threads()} threads, batch 1, {options.seconds:g} s clips")  # fmt: skip
        if options.output:
            settings = {"threads": torch.get_num_threads(), "clips": options.clips, "seconds": options.seconds,
                        "repeats": options.repeats, "batch": 1, "bandwidth_kbps": BANDWIDTH}  # fmt: skip
            document = {
                "unit": "times real time",
                "speeds": rows,
                "ratio": ratio,
                "settings": settings,
                "versions": versions(),
            }
            write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")
    except SpeechtokError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
