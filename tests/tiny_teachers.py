"""Very small teachers with random weights, saved as the real ones are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechtok.guidance.speaker import save_ecapa
from speechtok.nn.ecapa import ECAPA, ECAPAConfig

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
