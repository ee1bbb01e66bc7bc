"""The untrained codec that speed and precision are measured on: its signal keeps its size, its codebooks fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny import HOP, samples, tiny_codec


@pytest.fixture
def made(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    import official_size

    return official_size


def test_what_leaves_every_convolution_has_mean_0_and_variance_1_on_the_example(made):
    from speechtok.nn.conv import Conv1d, ConvTranspose1d, fold_weight_norm

    codec, wave = fold_weight_norm(tiny_codec("seanet")).eval(), torch.tensor(samples(40 * HOP).samples)[None]
    latent = made.standardised(codec.encoder, wave)
    made.standardised(codec.decoder, latent)
    means, deviations = [], []

    def listen(_, __, y):
        means.append(y.mean((0, 2)))
        deviations.append(y.std((0, 2)))

    for layer in codec.modules():
        if isinstance(layer, Conv1d | ConvTranspose1d):
            layer.register_forward_hook(listen)
    with torch.no_grad():
        again = codec.encoder(wave)
        codec.decoder(again)
    assert torch.allclose(again, latent, atol=1e-4)
    assert torch.cat(means).abs().max() < 1e-3 and (torch.cat(deviations) - 1).abs().max() < 1e-2


def test_codebooks_hold_more_of_the_latents_with_every_level(made):
    codec = tiny_codec("seanet").eval()
    speech = [torch.tensor(samples(60 * HOP, seed=seed).samples) for seed in range(2)]
    with torch.no_grad():
        vectors = made.latents(codec, speech)
    assert len(vectors) == 2 * sum(-(-(60 * HOP - round(shift * HOP / 4)) // HOP) for shift in range(4))
    made.fit_codebooks(codec, vectors)
    shares = made.explained(codec, [wave[None] for wave in speech])
    assert shares[0] > 0 and shares == sorted(shares) and shares[-1] <= 1
