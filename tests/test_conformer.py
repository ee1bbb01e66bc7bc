"""Conformer blocks: distances, padding, the order of a prompt, and HiFi-GAN's length law."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechtok.errors import ConfigError
from speechtok.nn.conformer import Conformer, ConformerConfig, RelativeAttention, TimeConv, by_pair, distances
from speechtok.nn.hifigan import HiFiGAN, HiFiGANConfig

TINY = ConformerConfig(width=8, heads=2, blocks=2, feed_forward=12, kernel=5, dropout=0.0)


@given(st.integers(1, 12))
def test_pairs_find_the_score_of_their_distance(frames):
    by_distance = torch.arange(frames - 1, -frames, -1).float().expand(frames, -1)
    places = torch.arange(frames)
    assert torch.equal(by_pair(by_distance[None])[0], (places[:, None] - places[None]).float())


def test_sinusoids_of_a_distance_do_not_depend_on_the_length():
    assert torch.allclose(distances(9, 8)[4:-4], distances(5, 8))


def test_attention_equals_its_definition():
    torch.manual_seed(0)
    attention = RelativeAttention(TINY).eval()
    torch.nn.init.normal_(attention.content_bias)
    torch.nn.init.normal_(attention.position_bias)
    x = torch.randn(1, 6, 8)
    normed = attention.norm(x)
    query, key, value = (attention.split(part(normed))[0] for part in (attention.query, attention.key, attention.value))
    where = attention.split(attention.position(distances(6, 8))[None])[0]
    heads = []
    for h in range(2):
        scores = torch.empty(6, 6)
        for i in range(6):
            for j in range(6):
                content = (query[h, i] + attention.content_bias[h, 0]) @ key[h, j]
                place = (query[h, i] + attention.position_bias[h, 0]) @ where[h, 5 - (i - j)]
                scores[i, j] = (content + place) / 2.0  # the square root of 4 numbers per head
        heads.append(scores.softmax(1) @ value[h])
    assert torch.allclose(attention(x)[0], attention.out(torch.cat(heads, 1)), atol=1e-5)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = Conformer(TINY, 4, 3).eval()
    x, prompt = torch.randn(1, 7, 4), torch.randn(1, 5, 3)
    padded = torch.cat([x, 9 * torch.randn(1, 3, 4)], 1)
    mask = torch.arange(10)[None] < 7
    assert torch.allclose(model(padded, prompt, mask)[:, :7], model(x, prompt), atol=1e-5)


def test_the_order_of_a_prompt_does_not_matter_but_its_content_does():
    torch.manual_seed(0)
    model = Conformer(TINY, 4, 3).eval()
    x, prompt = torch.randn(1, 7, 4), torch.randn(1, 5, 3)
    assert torch.allclose(model(x, prompt), model(x, prompt.flip(1)), atol=1e-5)
    assert not torch.allclose(model(x, prompt), model(x, prompt + torch.randn(5, 3)), atol=1e-3)


def test_the_order_of_the_frames_matters():
    torch.manual_seed(0)
    model = Conformer(ConformerConfig(width=8, heads=2, blocks=1, feed_forward=12, feed_forward_kernel=1, kernel=1), 4)
    x = torch.randn(1, 6, 4)
    assert not torch.allclose(model.eval()(x).flip(1), model(x.flip(1)), atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_time_conv_is_a_convolution(kernel):
    torch.manual_seed(0)
    layer, x = TimeConv(3, 5, kernel), torch.randn(2, 9, 3)
    weight = layer.linear.weight.unflatten(1, (3, kernel))
    wanted = torch.nn.functional.conv1d(x.transpose(1, 2), weight, layer.linear.bias, padding=kernel // 2)
    assert torch.allclose(layer(x), wanted.transpose(1, 2), atol=1e-5)


@pytest.mark.parametrize("change", [{"width": 6}, {"kernel": 4}, {"feed_forward_kernel": 2}, {"blocks": 0}])
def test_shapes_that_cannot_be_are_refused(change):
    with pytest.raises(ConfigError, match="conformer"):
        ConformerConfig(**({"width": 8, "heads": 2} | change))


@given(st.integers(1, 9), st.sampled_from([(2, 3), (5, 4, 2), (8, 5)]))
def test_hifigan_makes_a_hop_of_every_frame(frames, rates):
    config = HiFiGANConfig(channels=8, rates=rates, kernels=(3, 5), dilations=(1, 3))
    wave = HiFiGAN(config, 4)(torch.randn(2, frames, 4))
    assert wave.shape == (2, frames * config.hop)
    assert wave.abs().max() <= 1
