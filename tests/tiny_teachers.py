"""Very small teachers with random weights, saved as the real ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from speechtok.guidance.speaker import save_ecapa
from speechtok.nn.bottleneck import BottleneckShape, bottleneck_of, listening
from speechtok.nn.ecapa import ECAPA, ECAPAConfig
from speechtok.nn.hubert import HubertShape, build, encode, features, save
from speechtok.train.transcripts import PHONES
from tiny import signal

WIDTH = 8
"""Of the features of ``tiny_hubert``."""


def tiny_hubert(folder: Path) -> Path:
    """A HuBERT of ``transformers`` with two layers and the frames of the real one (hop 320, window 400)."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.HubertConfig(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, conv_dim=(4,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    transformers.HubertModel(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def tiny_speaker(folder: Path) -> Path:
    """An ECAPA-TDNN file in SpeechBrain's layout."""
    torch.manual_seed(0)
    path = folder / "embedding_model.safetensors"
    save_ecapa(ECAPA(ECAPAConfig(channels=8, aggregate=12, embedding=6, scale=4, squeeze=4, attention=4)), path)
    return path


def tiny_supervised(folder: Path | None = None, seed: int = 0, **bottleneck: Any) -> Any:
    """A log-mel network of ``nn.hubert`` with a head and codes placed by its own states; ``folder`` gets a copy."""
    pytest.importorskip("transformers")
    torch.manual_seed(seed)
    shape = HubertShape(bands=20, layers=2, width=16, heads=2, feed_forward=24, position_kernel=4, position_groups=2)
    network = build(shape, 40, BottleneckShape(**({"codebook_size": 24} | bottleneck))).eval()
    with torch.no_grad(), listening() as heard:
        encode(network, features(network, torch.from_numpy(signal(4.0, 16000, seed).samples.copy())[None]))
    bottleneck_of(network).quantizer.initialise(heard[0].latent[0])
    if folder is not None:
        save(network, folder, {"classes": ["", *PHONES], "loss": "ctc"})
    return network
