"""Acoustic guidance: gradients reach the encoder, options do what they say, divergences match their formulas."""

from __future__ import annotations

import itertools

import pytest
import torch

from speechtok.errors import ConfigError
from speechtok.guidance.acoustic import (
    CHOICES,
    AcousticConfig,
    AlignLayer,
    gaussian_divergence,
    guided_latents,
    softmax_divergence,
)
from speechtok.guidance.frames import CodecGrid
from speechtok.nn.ecapa import SpeakerFeatures
from speechtok.nn.quantizers import ResidualVQ

GRID = CodecGrid(16000, 320)
BATCH, FRAMES, WIDTH = 3, 10, 8


def allowed() -> list[dict[str, str]]:
    combinations = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
    return [c for c in combinations if not (c["target"] == "frames" and c["align"] == "learned_queries")]


@pytest.fixture
def scene():
    """Latents with gradient, their quantizer and codes, and what a teacher heard."""
    torch.manual_seed(0)
    latent = torch.randn(BATCH, FRAMES, WIDTH, requires_grad=True)
    quantizer = ResidualVQ(WIDTH, 16, 3).eval()
    heard = SpeakerFeatures(torch.randn(BATCH, 6), torch.randn(BATCH, 2 * FRAMES + 1, 5))
    return latent, quantizer, quantizer.encode(latent), heard


def guide(**options) -> AlignLayer:
    return AlignLayer(AcousticConfig(width=16, heads=4, **options), WIDTH, 6, 5, GRID)


@pytest.mark.parametrize("options", allowed(), ids=lambda options: "-".join(options.values()))
def test_every_combination_teaches_the_encoder(scene, options):
    latent, quantizer, codes, heard = scene
    layer = guide(**options)
    losses = layer(latent, quantizer, codes, heard)
    assert set(losses) == {"acoustic/kl", "acoustic/cosine"}
    assert losses["acoustic/kl"] >= 0
    assert 0 <= losses["acoustic/cosine"] <= 2
    for loss in losses.values():
        (gradient,) = torch.autograd.grad(loss, latent, retain_graph=True)
        assert (gradient.abs().amax((1, 2)) > 0).all()
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("options", allowed(), ids=lambda options: "-".join(options.values()))
def test_masked_frames_do_not_count(scene, options):
    latent, quantizer, codes, heard = scene
    layer = guide(**options)
    mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
    mask[1, 6:] = False
    other = codes.clone()
    other[1, :, 6:] = (other[1, :, 6:] + 1) % 16
    ours, changed = layer(latent, quantizer, codes, heard, mask), layer(latent, quantizer, other, heard, mask)
    unmasked = layer(latent, quantizer, other, heard)
    for name in ours:
        assert torch.allclose(ours[name], changed[name], atol=1e-6)
    assert any(not torch.allclose(ours[name], unmasked[name], atol=1e-6) for name in ours)


def test_what_is_guided_are_code_vectors_with_the_gradient_of_the_latent(scene):
    latent, quantizer, codes, _ = scene
    levels = [layer.lookup(row) for layer, row in zip(quantizer.layers, codes.unbind(1), strict=True)]
    (residual,) = guided_latents("residual_sum", latent, quantizer, codes)
    (everything,) = guided_latents("all_sum", latent, quantizer, codes)
    each = guided_latents("each_residual", latent, quantizer, codes)
    assert torch.allclose(residual, levels[1] + levels[2], atol=1e-6)
    assert torch.allclose(everything, sum(levels), atol=1e-6)
    assert [torch.allclose(ours, level, atol=1e-6) for ours, level in zip(each, levels[1:], strict=True)] == [
        True,
        True,
    ]
    for guided in (residual, everything, *each):
        (gradient,) = torch.autograd.grad(guided.sum(), latent)
        assert torch.equal(gradient, torch.ones_like(latent))


def test_divergences_by_hand():
    target, predicted = torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[3.0, 1.0]]))
    by_hand = 0.5 * torch.log(torch.tensor(0.5 / 0.75)) + 0.5 * torch.log(torch.tensor(0.5 / 0.25))
    assert torch.allclose(softmax_divergence(target, predicted), by_hand)
    assert softmax_divergence(target, target).item() == 0
    assert not torch.allclose(softmax_divergence(target, predicted, 2.0), by_hand)
    assert gaussian_divergence(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]), 2.0).item() == 5 / 8


def test_the_align_layer_learns_the_target(scene):
    latent, quantizer, codes, heard = scene
    torch.manual_seed(0)
    layer = guide()
    optimiser = torch.optim.Adam([*layer.parameters()], 0.02)
    values = []
    for _ in range(30):
        losses = layer(latent.detach(), quantizer, codes, heard)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        values.append(losses["acoustic/cosine"].item())
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"guided": "first"}, id="unknown-choice"),
        pytest.param({"target": "frames"}, id="one-query-for-many-frames"),
        pytest.param({"heads": 7}, id="heads-do-not-divide"),
        pytest.param({"temperature": 0.0}, id="zero-temperature"),
    ],
)
def test_settings_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError, match="acoustic"):
        AcousticConfig(**options)


def test_one_level_has_no_residual():
    quantizer = ResidualVQ(WIDTH, 4, 1)
    with pytest.raises(ConfigError, match="two levels"):
        guided_latents("residual_sum", torch.zeros(1, 2, WIDTH), quantizer, torch.zeros(1, 1, 2, dtype=torch.long))
