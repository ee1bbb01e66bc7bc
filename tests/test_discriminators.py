"""Discriminators and the losses made of their judgements."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from speechtok.nn.discriminators import (
    BandDiscriminatorConfig,
    Judges,
    JudgesConfig,
    PeriodDiscriminatorConfig,
    ScaleDiscriminatorConfig,
    STFTDiscriminatorConfig,
)
from speechtok.nn.discriminators.waveform import PeriodDiscriminator, ScaleDiscriminator
from speechtok.train.losses import MultiScaleMel, adversarial_loss, discriminator_loss, feature_loss


def small(level: bool = False, official: bool = True) -> JudgesConfig:
    return JudgesConfig(
        STFTDiscriminatorConfig(2, (256, 128), official),
        PeriodDiscriminatorConfig((2, 3), 1 / 64),
        ScaleDiscriminatorConfig(3, 1 / 64),
        BandDiscriminatorConfig(2, (256,)),
        level,
    )


def test_published_shapes():
    def count(kernel: tuple[int, ...], *channels: int) -> list[tuple[int, ...]]:
        return [(o, i, *kernel) for i, o in pairwise(channels)]

    period = PeriodDiscriminator(5, 1.0)
    assert [tuple(x.weight.shape) for x in period.layers] == count((5, 1), 1, 32, 128, 512, 1024, 1024)
    assert tuple(period.score.weight.shape) == (1, 1024, 3, 1)
    assert [x.stride for x in period.layers] == [(3, 1)] * 4 + [(1, 1)]
    scale = ScaleDiscriminator(0, 1.0)
    assert [(x.out_channels, x.kernel_size[0], x.stride[0], x.groups) for x in scale.layers] == [
        (128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16), (1024, 41, 4, 16), (1024, 41, 1, 16),
        (1024, 5, 1, 1),
    ]  # fmt: skip


def parametrised(module: nn.Module) -> list[str]:
    normed = [layer for layer in module if hasattr(layer, "parametrizations")]
    return [type(layer.parametrizations["weight"][0]).__name__.lstrip("_") for layer in normed]


def test_norms_are_the_published_ones():
    stft, _, _, _, raw, halved, _, band = Judges(small()).members
    assert parametrised(raw.layers) == ["SpectralNorm"] * 7
    assert parametrised(halved.layers) == ["WeightNorm"] * 7
    assert parametrised(stft.layers) == ["WeightNorm"] * 4 and not hasattr(stft.layers[0], "parametrizations")
    assert parametrised(band.stacks[0]) == ["WeightNorm"] * 5


def test_flat_list_in_order_and_by_turns():
    torch.manual_seed(0)
    judges, wave = Judges(small()).eval(), torch.randn(2, 1001)
    everything = judges(wave)
    assert len(everything) == len(judges) == small().count == 8
    assert [len(features) for _, features in everything] == [5, 5, 6, 6, 8, 8, 8, 26]
    (second, _), (last, _) = judges(wave, (1, 7))
    assert torch.equal(second, everything[1][0]) and torch.equal(last, everything[7][0])
    assert all(score.shape[0] == 2 and score.isfinite().all() for score, _ in everything)


@pytest.mark.parametrize("member", range(8))
def test_every_member_passes_gradients_to_the_signal_and_to_itself(member):
    judges, wave = Judges(small()), torch.randn(1, 800, requires_grad=True)
    ((score, _),) = judges(wave, (member,))
    score.square().mean().backward()
    assert wave.grad.abs().sum() > 0
    assert all(p.grad is not None for p in judges.members[member].parameters())


def test_level_ignores_loudness_and_offset():
    torch.manual_seed(0)
    judges, wave = Judges(small(level=True)).eval(), torch.randn(1, 800)
    for (one, _), (other, _) in zip(judges(wave), judges(0.1 * wave + 0.3), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def judged(*scores: float) -> list:
    return [(torch.full((2, 3), score), [torch.full((2, 4), score), torch.full((2, 4), 2 * score)]) for score in scores]


@pytest.mark.parametrize(
    "form, reduction, discriminator, generator",
    [
        # real scores 0.5 and 2, generated -0.5 and 0.25
        ("lsgan", "sum", (0.25 + 0.25) + (1 + 0.0625), 2.25 + 0.5625),
        ("lsgan", "mean", ((0.25 + 0.25) + (1 + 0.0625)) / 2, (2.25 + 0.5625) / 2),
        ("hinge", "sum", (0.5 + 0.5) + (0 + 1.25), 1.5 + 0.75),
        ("hinge", "mean", ((0.5 + 0.5) + (0 + 1.25)) / 2, (1.5 + 0.75) / 2),
    ],
)
def test_adversarial_losses_by_hand(form, reduction, discriminator, generator):
    real, fake = judged(0.5, 2), judged(-0.5, 0.25)
    assert float(discriminator_loss(real, fake, form, reduction)) == pytest.approx(discriminator)
    assert float(adversarial_loss(fake, form, reduction)) == pytest.approx(generator)


@pytest.mark.parametrize(
    "form, reduction, value",
    [
        # distances 1, 2 of real features 0.5, 1 and 1.75, 3.5 of 2, 4
        ("absolute", "sum", 1 + 2 + 1.75 + 3.5),
        ("absolute", "mean", (1 + 2 + 1.75 + 3.5) / 4),
        ("relative", "sum", 2 + 2 + 0.875 + 0.875),
        ("relative", "mean", (2 + 2 + 0.875 + 0.875) / 4),
    ],
)
def test_feature_matching_by_hand(form, reduction, value):
    assert float(feature_loss(judged(0.5, 2), judged(-0.5, 0.25), form, reduction)) == pytest.approx(value)


def test_mel_weights_and_squares():
    torch.manual_seed(0)
    wave, target = torch.randn(2, 2, 4000)
    shape = (16000, (512, 256), (20, 20))
    scales = [float(MultiScaleMel(16000, shape[1][i : i + 1], (20,))(wave, target)) for i in range(2)]
    assert float(MultiScaleMel(*shape)(wave, target)) == pytest.approx(sum(scales) / 2, rel=1e-5)
    weighted = MultiScaleMel(*shape, weights=(45, 1))
    assert float(weighted(wave, target)) == pytest.approx(45 * scales[0] + scales[1], rel=1e-5)
    both = MultiScaleMel(16000, (512,), (20,), hops=(100,), squared=True)
    difference = both.scales[0](wave) - both.scales[0](target)
    assert float(both(wave, target)) == pytest.approx(float(difference.abs().mean() + difference.square().mean()))
