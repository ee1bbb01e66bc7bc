"""How soon a causal codec's stream gives codes and sound, and how much of real time it needs.

    python benchmarks/latency.py --model FOLDER --frames 1 2 5 --threads 1 -o latency.json

Without ``--model``: two causal codecs with random weights and codebooks fitted to speech; speed does not depend on
training. Audio comes in pieces of 20 ms, as a sound card gives it. Times are those of the processor, not of the clock:
other work on the machine does not count, and several threads add up.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import speechtok
from speechtok.bench.reconstruction import versions
from speechtok.clips import bundled_clips
from speechtok.errors import run_module
from speechtok.files import write_text_atomic
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.frame import FrameConfig, start_from_principal_components
from speechtok.nn.quantizers import QuantizerConfig
from speechtok.nn.seanet import SEANetConfig
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer

PIECE = 0.02
SIZES = {"dimension": 128, "quantizer": QuantizerConfig(kmeans_iterations=3)}
UNTRAINED = {
    "frame": CodecConfig(backbone="frame", **SIZES, frame=FrameConfig(causal=True, consistency_iterations=0)),
    "seanet": CodecConfig(backbone="seanet", **SIZES, seanet=SEANetConfig(n_filters=32, causal=True)),
}


def untrained(name: str, speech: np.ndarray) -> Tokenizer:
    """A causal codec whose codebooks are fitted to its own latents of ``speech``."""
    torch.manual_seed(0)
    codec = Codec(UNTRAINED[name]).eval()
    wave = torch.tensor(speech)[None]
    with torch.no_grad():
        if name == "frame":
            start_from_principal_components(codec.encoder, codec.decoder, wave)
        codec.quantizer.initialise(codec.encoder(wave)[0])
    return CodecTokenizer(codec, f"{name}, untrained", scheme="A", semantic_levels=())


def measure(tokenizer: Tokenizer, speech: np.ndarray, frames: int) -> dict[str, Any]:
    """Encode and decode ``speech`` piece by piece, and compare with the whole."""
    size = round(PIECE * tokenizer.sample_rate)
    codes, sound, encoding, decoding = [], [], [], []
    with tokenizer.stream(frames=frames) as stream:
        for start in range(0, len(speech), size):
            begin = time.process_time()
            codes.append(stream.encode(speech[start : start + size]))
            between = time.process_time()
            sound.append(stream.decode(codes[-1]))
            if codes[-1].shape[1]:
                encoding.append(between - begin)
                decoding.append(time.process_time() - between)
        codes.append(stream.finish())
        sound.append(stream.decode(codes[-1], until=stream.heard))
        tokens, latency = stream.tokens(codes), stream.latency_seconds
    whole = tokenizer.encode(speechtok.Audio(speech, tokenizer.sample_rate))
    error = np.abs(np.concatenate(sound) - tokenizer.decode(tokens).samples).max()
    return {
        "tokenizer": tokenizer.name,
        "frames": frames,
        "heard_before_the_first_code_ms": 1e3 * latency,
        "encode_ms": percentiles(encoding),
        "decode_ms": percentiles(decoding),
        "encode_times_real_time": tokens.seconds / sum(encoding),
        "decode_times_real_time": tokens.seconds / sum(decoding),
        "codes": tokens.codes.size,
        "codes_unlike_offline": int((tokens.codes != whole.codes).sum()),
        "largest_difference_of_sound": float(error),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds of one computation that gave codes: the middle one, and what one in 20 exceeds."""
    return {"median": 1e3 * float(np.median(seconds)), "95th": 1e3 * float(np.percentile(seconds, 95))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[], help="causal models (default: two untrained ones)")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 2, 5], help="computed at a time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of speech")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    speech = np.concatenate([speechtok.read(clip.path, 16000).samples for clip in bundled_clips()])
    models = [speechtok.load(name) for name in options.model] or [untrained(name, speech) for name in UNTRAINED]
    rows = []
    for tokenizer in models:
        audio = speechtok.Audio(speech, 16000).resample(tokenizer.sample_rate)
        part = audio.samples[: round(options.seconds * tokenizer.sample_rate)]
        for frames in options.frames:
            rows.append(measure(tokenizer, part, frames))
            print(
                "{tokenizer}  {frames} frames  first code after {heard_before_the_first_code_ms:.0f} ms of audio, "
                "computed in {encode_ms[median]:.1f} ms ({encode_ms[95th]:.1f}), decoded in {decode_ms[median]:.1f} ms "
                "({decode_ms[95th]:.1f}); {codes_unlike_offline} of {codes} codes unlike offline".format(**rows[-1]),
                flush=True,
            )
    if options.output:
        settings = {"seconds": options.seconds, "piece_ms": 1e3 * PIECE, "threads": options.threads}
        document = {"settings": settings, "versions": versions(), "rows": rows}
        write_text_atomic(options.output, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    run_module(main)
