"""Residual quantization: round trips, gradients, and codebooks that stay alive."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechtok.nn.quantizers import QuantizerConfig, ResidualVQ, VectorQuantizer, kmeans


def make_rvq(dimension: int = 8, size: int = 32, levels: int = 4, seed: int = 0, **options) -> ResidualVQ:
    torch.manual_seed(seed)
    return ResidualVQ(dimension, size, levels, QuantizerConfig(**options))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(1, 4))
def test_levels_taken_early_equal_the_first_of_all(batch, frames, levels):
    rvq, latent = make_rvq(), torch.randn(batch, frames, 8)
    codes = rvq.encode(latent)
    assert codes.shape == (batch, 4, frames)
    assert torch.equal(rvq.encode(latent, levels), codes[:, :levels])


def test_nearest_is_the_euclidean_nearest():
    layer = VectorQuantizer(8, 32, QuantizerConfig())
    vectors = torch.randn(5, 7, 8)
    assert torch.equal(layer.nearest(vectors), torch.cdist(vectors, layer.embed).argmin(-1))


def test_decode_of_a_block_is_the_sum_of_its_levels():
    rvq = make_rvq()
    codes = rvq.encode(torch.randn(2, 9, 8))
    whole, head, tail = rvq.decode(codes), rvq.decode(codes[:, :1]), rvq.decode(codes[:, 1:], first_level=1)
    torch.testing.assert_close(whole, head + tail)


def test_error_falls_with_every_level_after_kmeans():
    rvq, data = make_rvq(), torch.randn(2000, 8)
    rvq.initialise(data)
    codes = rvq.encode(data[None])
    errors = [float((rvq.decode(codes[:, :k]) - data).square().mean()) for k in range(1, 5)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("official", [False, True], ids=["detached-residual", "official-gradient"])
def test_commitment_of_deep_levels_reaches_the_encoder_only_when_the_residual_is_detached(official):
    rvq = make_rvq(reproduce_official_gradient=official).eval()
    latent = torch.randn(1, 6, 8, requires_grad=True)
    out = rvq(latent)
    (whole,) = torch.autograd.grad(out.commitment, latent)
    first = (latent - rvq.layers[0].lookup(out.codes[:, 0])).square().mean() / len(rvq.layers)
    (first_only,) = torch.autograd.grad(first, latent)
    assert torch.allclose(whole, first_only, atol=1e-7) is official


def test_straight_through_passes_the_gradient_unchanged():
    latent = torch.randn(2, 5, 8, requires_grad=True)
    weight = torch.randn(2, 5, 8)
    (gradient,) = torch.autograd.grad((make_rvq().eval()(latent).latent * weight).sum(), latent)
    torch.testing.assert_close(gradient, weight)


def test_padding_teaches_no_codebook():
    first, second = make_rvq().train(), make_rvq().train()
    latent, mask = torch.randn(2, 40, 8), torch.ones(2, 40, dtype=torch.bool)
    mask[1, 25:] = False
    other = torch.where(mask[..., None], latent, torch.full_like(latent, 50.0))
    for rvq, values in ((first, latent), (second, other)):
        torch.manual_seed(1)
        rvq(values, mask)
    for a, b in zip(first.layers, second.layers, strict=True):
        assert torch.equal(a.embed, b.embed)


def test_dropout_leaves_out_deep_levels_and_only_in_training():
    rvq = make_rvq(dropout=1.0)
    rvq.initialise(torch.randn(500, 8))
    latent = torch.randn(64, 3, 8)
    full = rvq.eval()(latent)
    assert torch.equal(full.latent, latent + (rvq.decode(full.codes) - latent))
    torch.manual_seed(0)
    partial = rvq.train()(latent)
    depth = dict.fromkeys(range(1, 5), 0)
    for item, codes in zip(partial.latent, partial.codes, strict=True):
        gaps = [float((rvq.decode(codes[None, :k])[0] - item).abs().max()) for k in depth]
        depth[1 + gaps.index(min(gaps))] += 1
    assert all(depth.values())  # every depth was drawn


def stress(threshold: float) -> int:
    """Live codes after 400 steps from a start with 60 of 64 codes far from the data."""
    torch.manual_seed(0)
    layer = VectorQuantizer(16, 64, QuantizerConfig(revive_below=threshold))
    layer.embed[4:] += 100.0
    layer.embed_avg.copy_(layer.embed)
    layer.inited.fill_(1)
    for _ in range(400):
        data = torch.randn(512, 16)
        layer.update(data, layer.nearest(data))
    return len(layer.nearest(torch.randn(20000, 16)).unique())


def test_dead_codes_come_back_and_stay():
    assert stress(QuantizerConfig().revive_below) >= 60


def test_without_revival_the_stress_start_stays_dead():
    assert stress(0.0) <= 4


def test_revived_codes_survive_the_next_ema_step():
    layer = VectorQuantizer(4, 8, QuantizerConfig(revive_below=0.5))
    layer.embed[1:] = 1000.0
    layer.embed_avg.copy_(layer.embed)
    layer.cluster_size[1:] = 0
    data = torch.randn(100, 4)
    assert layer.update(data, torch.zeros(100, dtype=torch.long)) == 7
    layer.update(data, torch.zeros(100, dtype=torch.long))
    assert float(layer.embed.abs().max()) < 10


@pytest.mark.parametrize("count", [5, 32, 300], ids=["fewer-than-codes", "as-many", "many"])
def test_kmeans_gives_finite_distinct_centres(count):
    torch.manual_seed(0)
    centres, sizes = kmeans(torch.randn(count, 3), 32, 10)
    assert torch.isfinite(centres).all() and sizes.sum() == count
    assert len(centres.unique(dim=0)) >= min(count, 32) * 0.9


def make_own_space(seed: int = 0, **options) -> ResidualVQ:
    torch.manual_seed(seed)
    return ResidualVQ(8, 16, 3, QuantizerConfig(kmeans_iterations=5, **options), own_space=4)


def test_level_one_in_its_own_space_ignores_the_latent():
    rvq, vectors = make_own_space(), torch.randn(2, 9, 12)
    rvq.initialise(torch.randn(400, 12))
    other = torch.cat([vectors[..., :4], torch.randn(2, 9, 8)], -1)
    codes, others = rvq.encode(vectors), rvq.encode(other)
    assert torch.equal(codes[:, 0], others[:, 0])
    assert not torch.equal(codes[:, 1:], others[:, 1:])
    assert rvq.decode(codes).shape == (2, 9, 8)
    assert rvq.first(codes[:, 0]).shape == (2, 9, 4)


def test_a_code_of_level_one_holds_the_mean_latent_of_its_frames():
    rvq, vectors = make_own_space(), torch.randn(2000, 12)
    rvq.layers[0].initialise(vectors)
    codes = rvq.layers[0].nearest(vectors)
    # k-means ends with means of the assignment before the last: one more update with no memory gives those of this one
    rvq.layers[0].config.decay = 0.0
    rvq.layers[0].update(vectors, codes)
    for code in range(3):
        mean = vectors[codes == code].mean(0)
        torch.testing.assert_close(rvq.layers[0].embed[code], mean, atol=1e-3, rtol=1e-3)


def test_levels_in_training_and_encoding_agree_with_a_space_of_its_own():
    rvq, vectors = make_own_space().eval(), torch.randn(2, 9, 12)
    quantized = rvq(vectors)
    assert torch.equal(quantized.codes, rvq.encode(vectors))
    torch.testing.assert_close(quantized.latent, rvq.decode(quantized.codes))
    torch.testing.assert_close(quantized.first, rvq.first(quantized.codes[:, 0]))


def test_the_latent_gets_no_gradient_from_the_choice_of_level_one():
    rvq, vectors = make_own_space().eval(), torch.randn(2, 9, 12, requires_grad=True)
    rvq(vectors).first.sum().backward()
    assert vectors.grad[..., :4].abs().sum() > 0
    assert vectors.grad[..., 4:].abs().sum() == 0
