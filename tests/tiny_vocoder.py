"""Very small vocoders with random weights, and units for them."""

from __future__ import annotations

import torch

from conftest import synthetic_speech
from speechtok.nn.conformer import ConformerConfig
from speechtok.nn.ctx_vec2wav import CtxVec2Wav, VocoderConfig
from speechtok.nn.frame import FrameConfig
from speechtok.nn.hifigan import HiFiGANConfig
from speechtok.tokenizers.features import MelFeatures
from speechtok.tokenizers.units import Clusters, UnitTokenizer
from speechtok.tokenizers.vocoder import NeuralVocoder, prompt_of

CONFORMER = ConformerConfig(width=8, heads=2, blocks=1, feed_forward=12, kernel=5, dropout=0.0)
FRAME = FrameConfig(hop=320, n_fft=640, stack=2, width=8, expansion=2, encoder_blocks=1, decoder_blocks=1)
BACKENDS = {
    "hifigan": {"repeat": 2, "hifigan": HiFiGANConfig(channels=16, kernels=(3,), dilations=(1,))},
    "frame": {"repeat": 1, "frame": FRAME, "latent": 6},
}


def tiny_config(backend: str, **changes) -> VocoderConfig:
    """For the codes of ``tiny_units``."""
    shared = {"codebook_sizes": (12,), "code_dimension": 20, "prompt_dimension": 20, "conformer": CONFORMER}
    return VocoderConfig(**(shared | {"backend": backend} | BACKENDS[backend] | changes))


def tiny_units() -> UnitTokenizer:
    """Twelve units of spectra, spread over voice-like speech."""
    features = MelFeatures(n_mels=20)
    rows = features.over(synthetic_speech(6.0).samples)
    return UnitTokenizer(Clusters(features, torch.from_numpy(rows[::25][:12].copy())), "tiny-units")


def tiny_vocoder(units: UnitTokenizer, backend: str = "frame", **changes) -> NeuralVocoder:
    """For ``tiny_units``."""
    torch.manual_seed(0)
    model, features = CtxVec2Wav(tiny_config(backend, **changes)), units.source.features
    return NeuralVocoder(model, features, prompt_of(features, synthetic_speech(0.6, seed=5)), units.fingerprint)


def speaking_units() -> UnitTokenizer:
    """``tiny_units`` with a vocoder that has a prosody branch."""
    units = tiny_units()
    return UnitTokenizer(units.source, "tiny-speaking", vocoder=tiny_vocoder(units, prosody=True))
