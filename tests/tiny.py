"""Very small codecs with random weights, and signals for them."""

from __future__ import annotations

import numpy as np
import torch

from speechtok.audio import Audio
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.frame import FrameConfig
from speechtok.nn.seanet import SEANetConfig
from speechtok.nn.timbre import TimbreConfig
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokenizers.timbre import TimbreTokenizer

RATE, HOP = 8000, 40
FRAME = {"hop": HOP, "n_fft": 80, "stack": 2, "width": 16, "encoder_blocks": 2, "decoder_blocks": 2}
SEANET = {"n_filters": 4, "strides": (5, 4, 2)}
TIMBRE = {"dimension": 6, "bands": 10, "width": 8, "blocks": 2, "kernel_size": 3}
SECTIONS = {
    "frame": {"frame": FrameConfig(**FRAME)},
    "frame-causal": {"frame": FrameConfig(**FRAME, causal=True, consistency_iterations=0)},
    "frame-own": {"frame": FrameConfig(**FRAME, own_space=6)},
    "frame-timbre": {"frame": FrameConfig(**FRAME), "timbre": TimbreConfig(**TIMBRE)},
    "seanet": {"seanet": SEANetConfig(**SEANET, sequence="none")},
    "seanet-timbre": {"seanet": SEANetConfig(**SEANET, sequence="none"), "timbre": TimbreConfig(**TIMBRE)},
    "seanet-causal": {"seanet": SEANetConfig(**SEANET, sequence="none", causal=True)},
    "seanet-transformer": {
        "seanet": SEANetConfig(**SEANET, sequence="transformer", transformer_heads=2, transformer_window=4)
    },
    "seanet-lstm": {"seanet": SEANetConfig(**SEANET, sequence="lstm", lstm_layers=1)},
}
KINDS = tuple(SECTIONS)


def tiny_codec(kind: str = "frame", seed: int = 0) -> Codec:
    """A codec whose codebooks are fitted to its own latents, so that all codes are in use."""
    torch.manual_seed(seed)
    config = CodecConfig(
        backbone=kind.partition("-")[0], sample_rate=RATE,
        dimension=16, semantic_dimension=8, codebook_size=32, n_q=4,
        **SECTIONS[kind],
    )  # fmt: skip
    codec = Codec(config).eval()
    with torch.no_grad():
        for name, weight in codec.named_parameters():
            if weight.ndim > 1 and "lstm" not in name:
                weight.mul_(1.7)  # ordinary initialisation lets the signal fade to nearly constant latents
        wave = torch.from_numpy(signal(4.0, seed=seed + 100).samples.copy())
        codec.quantizer.initialise(codec.encoder(wave[None])[0])
        if codec.film is not None:  # which changes nothing before it has learned
            torch.nn.init.normal_(codec.film.outputs.weight, std=0.5)
    return codec


def tiny_tokenizer(kind: str = "frame", seed: int = 0, **options) -> CodecTokenizer:
    """``tiny_codec`` as a tokenizer."""
    codec = tiny_codec(kind, seed)
    tokenizer = CodecTokenizer if codec.film is None else TimbreTokenizer
    return tokenizer(codec, f"tiny-{kind}", **options)


def signal(seconds: float, rate: int = RATE, seed: int = 0) -> Audio:
    """Noise whose loudness and colour change."""
    generator = np.random.default_rng(seed)
    count = max(1, round(seconds * rate))
    noise = generator.standard_normal(count)
    swell = 0.2 + np.abs(np.sin(np.arange(count) * 40 / rate))
    tone = np.sin(np.cumsum(0.05 + 0.5 * np.abs(np.sin(np.arange(count) * 7 / rate))))
    return Audio((0.1 * swell * (noise + 2 * tone)).astype(np.float32), rate)


def samples(count: int, seed: int = 0) -> Audio:
    """Exactly ``count`` samples."""
    return Audio(signal(count / RATE + 0.01, seed=seed).samples[:count], RATE)
