"""How good is the frame codec before any training? PESQ and STOI of its linear start, whole and without its parts.

    python benchmarks/start.py --data librispeech.tsv [--files 12] [--json OUT]

Principal components and codebooks come from the manifest's train split, the scores from its dev split. Codebooks are
placed by 10 k-means iterations; phases start random, so the figures show magnitudes and projections alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from speechtok.audio import read
from speechtok.bench.metrics import pesq_wb, stoi
from speechtok.errors import run_module
from speechtok.nn.frame import FrameConfig, FrameDecoder, FrameEncoder, start_from_principal_components
from speechtok.nn.quantizers import QuantizerConfig, ResidualVQ
from speechtok.train.data import read_manifest

RATE, DIMENSION = 16000, 128
VARIANTS = {
    "as released": FrameConfig(),
    "no emphasis": FrameConfig(emphasis=0.0),
    "floor 0.01": FrameConfig(floor=0.01),
    "2 projections": FrameConfig(consistency_iterations=2),
    "no projections": FrameConfig(consistency_iterations=0),
    "32 projections": FrameConfig(consistency_iterations=32),
}


def excerpts(manifest: Path, split: str, count: int, seconds: float) -> list[np.ndarray]:
    """The beginnings of ``count`` utterances spread over a split, ``[T]`` each."""
    rows = read_manifest(manifest, split)
    picks = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return [read(rows[i].path, RATE).samples[: int(seconds * RATE)] for i in picks]


@torch.inference_mode()
def score(config: FrameConfig, levels: int | None, speech: torch.Tensor, waves: list[np.ndarray]) -> dict[str, float]:
    """Mean PESQ-WB and STOI; ``levels=None`` leaves the latent unquantized."""
    torch.manual_seed(0)
    encoder, decoder = FrameEncoder(config, DIMENSION).eval(), FrameDecoder(config, DIMENSION).eval()
    start_from_principal_components(encoder, decoder, speech)
    quantizer = ResidualVQ(DIMENSION, 1024, 8, QuantizerConfig(kmeans_iterations=10))
    if levels:
        quantizer.initialise(torch.cat([encoder(part).flatten(0, 1) for part in speech.split(32)]))
    pairs = []
    for wave in waves:
        latent = encoder(torch.tensor(wave)[None])
        if levels:
            latent = quantizer.decode(quantizer.encode(latent, levels))
        features, phasor = decoder.predict(latent)
        random = torch.randn(phasor.shape, dtype=phasor.dtype)
        again = decoder.render(features, random, config.consistency_iterations)[0, : len(wave)]
        pairs.append((wave, again.numpy()))
    return {
        "pesq": float(np.mean([pesq_wb(wave, again, RATE) for wave, again in pairs])),
        "stoi": float(np.mean([stoi(wave, again, RATE) for wave, again in pairs])),
        "n": len(pairs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="manifest with train and dev rows")
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    speech = torch.tensor(np.stack([np.resize(w, RATE) for w in excerpts(options.data, "train", 400, 1.0)]))
    waves = excerpts(options.data, "dev", options.files, 6.0)
    rows = []
    for name, config in VARIANTS.items():
        for levels in (None, 8) if name == "as released" else (8,):
            rows.append({"start": name, "levels": levels, **score(config, levels, speech, waves), **asdict(config)})
            shown = "unquantized" if levels is None else f"{levels} levels"
            print(f"{name:16} {shown:12} PESQ {rows[-1]['pesq']:.3f}  STOI {rows[-1]['stoi']:.3f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run_module(main)
