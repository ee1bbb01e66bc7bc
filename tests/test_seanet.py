"""SEANet: the length law, what an output depends on, padded batches, and two arithmetics that agree."""

from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import speechtok.nn.conv as conv
from speechtok.errors import ConfigError
from speechtok.nn.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder, Snake
from speechtok.nn.sequence import windowed_attention

DIMENSION = 6
SMALL = {"n_filters": 4, "strides": (3, 2), "lstm_layers": 1, "transformer_heads": 2, "transformer_window": 3}
CONFIGS = {
    "official": SEANetConfig(**SMALL),
    "snake": SEANetConfig(**SMALL, activation="Snake", n_residual_layers=3, sequence="none"),
    "zeros": SEANetConfig(**SMALL, pad_mode="constant", sequence="none", n_residual_layers=2, true_skip=True),
    "transformer": SEANetConfig(**SMALL, sequence="transformer"),
    "zeros-transformer": SEANetConfig(**SMALL, sequence="transformer", pad_mode="constant"),
    "causal": SEANetConfig(**SMALL, sequence="none", causal=True),
    "causal-lstm": SEANetConfig(**SMALL, causal=True),
    "causal-transformer": SEANetConfig(**SMALL, sequence="transformer", causal=True),
}
HOP = 6
FINITE = [name for name, config in CONFIGS.items() if config.sequence != "lstm"]
PARTS = ("encoder", "decoder")


def build(part: str, name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    module = {"encoder": SEANetEncoder, "decoder": SEANetDecoder}[part](CONFIGS[name], DIMENSION)
    return module.double().eval()


built = lru_cache(build)
"""For tests that leave the module as it is."""


def inputs(part: str, frames: int, batch: int = 1) -> torch.Tensor:
    shape = (batch, frames * HOP) if part == "encoder" else (batch, frames, DIMENSION)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def as_frames(x: torch.Tensor) -> torch.Tensor:
    """Waveforms and latents alike as [B, N, what a frame holds]."""
    return x.unflatten(1, (-1, HOP)) if x.ndim == 2 else x


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=12)
@given(length=st.integers(1, 60), batch=st.integers(1, 3))
def test_length_law(name, length, batch):
    latent = built("encoder", name)(torch.randn(batch, length, dtype=torch.float64))
    frames = -(-length // HOP)
    assert latent.shape == (batch, frames, DIMENSION)
    assert built("decoder", name)(latent).shape == (batch, frames * HOP)
    assert latent.isfinite().all()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", FINITE)
def test_nothing_outside_the_context_matters(part, name):
    module = built(part, name)
    left, right = module.context()
    x = inputs(part, left + right + 6)
    y = as_frames(module(x))
    for n in range(y.shape[1]):
        changed = x.clone()
        as_frames(changed)[:, : max(0, n - left)] += 1
        as_frames(changed)[:, n + right + 1 :] += 1
        assert torch.allclose(as_frames(module(changed))[:, n], y[:, n], rtol=0, atol=1e-12), n


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", [name for name in FINITE if CONFIGS[name].pad_mode == "constant"])
def test_the_context_is_no_larger_than_needed(part, name):
    module = built(part, name)
    left, right = module.context()
    x = inputs(part, left + right + 3)
    n = left + 1
    y = as_frames(module(x))[:, n]
    for edge in (n - left, n + right):
        changed = x.clone()
        as_frames(changed)[:, edge] += 10
        assert not torch.equal(as_frames(module(changed))[:, n], y), edge


@pytest.mark.parametrize("part", PARTS)
def test_a_causal_model_sees_nothing_to_the_right(part):
    left, right = built(part, "causal").context()
    assert right == 0 < left


@pytest.mark.parametrize("part", PARTS)
def test_an_lstm_has_no_bound(part):
    assert built(part, "official").context() is None


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=8)
@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=3), spare=st.integers(0, 9))
def test_a_padded_batch_gives_what_each_signal_gives_alone(part, name, lengths, spare):
    module = built(part, name)
    x = inputs(part, max(lengths) + spare, len(lengths))
    if part == "encoder":
        x = x[:, : max(lengths) + spare]
    together = module(x, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone = module(x[row : row + 1, :length])[0]
        assert torch.allclose(together[row, : len(alone)], alone, rtol=0, atol=1e-10)
        assert not together[row, len(alone) :].any()


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_product_and_convolution_agree(part, name, monkeypatch):
    results = []
    for few in (True, False):
        monkeypatch.setattr(conv, "few", lambda *_, few=few: few)
        module = build(part, name)
        y = module(inputs(part, 9, batch=2))
        y.square().sum().backward()
        results.append([y.detach(), *(parameter.grad for parameter in module.parameters())])
    for product, convolution in zip(*results, strict=True):
        assert torch.allclose(product, convolution, rtol=1e-9, atol=1e-9)


def test_few_frames_go_to_the_product():
    assert conv.few(10, 40)
    assert not conv.few(11, 40)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_learns(part, name):
    module = build(part, name)
    module(inputs(part, 12, batch=2)).square().sum().backward()
    idle = [key for key, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize("part", PARTS)
def test_folding_changes_no_output(part):
    module, x = build(part, "official"), inputs(part, 8)
    for parameter in module.parameters():
        parameter.data.mul_(1.3)  # away from the start, where norm and weight agree
    expected = module(x)
    assert conv.fold_weight_norm(module) is module
    assert not [key for key in module.state_dict() if "parametrizations" in key]
    assert torch.allclose(module(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("short", [1, 2, 3, 4], ids="{}-samples".format)
def test_short_signals_are_lengthened_by_zeros_before_reflection(short):
    signal = torch.arange(1.0, short + 1).view(1, 1, -1)
    padded = conv.pad_time(signal, 4, 3, "reflect")[0, 0]
    longer = torch.cat([signal[0, 0], torch.zeros(5 - short)]) if short < 5 else signal[0, 0]
    expected = torch.cat([longer[1:5].flip(0), longer, longer[-4:-1].flip(0)])[: 4 + short + 3]
    assert torch.equal(padded, expected)


@pytest.mark.parametrize("right", [0, 2], ids=["causal", "two-sided"])
@pytest.mark.parametrize("frames", [1, 3, 4, 11])
def test_windowed_attention_equals_masked_dense_attention(frames, right):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, frames, 4, dtype=torch.float64)
    lengths = torch.tensor([frames, max(1, frames - 2)])
    distance = torch.arange(frames) - torch.arange(frames).unsqueeze(1)
    near = (distance >= -3) & (distance <= right)
    for row, length in enumerate(lengths):
        dense = torch.nn.functional.scaled_dot_product_attention(
            q[row, :, :length], k[row, :, :length], v[row, :, :length], attn_mask=near[:length, :length]
        )
        windowed = windowed_attention(q, k, v, (3, right), lengths)[row, :, :length]
        assert torch.allclose(windowed, dense, atol=1e-12)


def test_snake_is_its_formula():
    snake, x = Snake(3), torch.randn(2, 3, 5)
    snake.alpha.data = torch.tensor([0.5, 1.0, 2.0]).view(1, 3, 1)
    assert torch.allclose(snake(x), x + torch.sin(snake.alpha * x) ** 2 / snake.alpha, atol=1e-6)


def test_hop_and_channels():
    config = SEANetConfig()
    assert (config.hop, config.width) == (320, 1024)


def test_a_causal_model_pads_with_zeros_unless_told_otherwise():
    assert SEANetConfig(causal=True).pad_mode == "constant"
    assert SEANetConfig().pad_mode == "reflect"


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"activation": "ReLU"}, "activation"),
        ({"sequence": "gru"}, "sequence"),
        ({"pad_mode": "wrap"}, "pad_mode"),
        ({"n_filters": 0}, "n_filters"),
        ({"kernel_size": 7.0}, "kernel_size"),
        ({"lstm_layers": True}, "lstm_layers"),
        ({"strides": ()}, "strides"),
        ({"strides": 8}, "strides"),
        ({"strides": (8, -1)}, "strides"),
        ({"causal": True, "pad_mode": "reflect"}, "pad_mode"),
        ({"sequence": "transformer", "transformer_heads": 7}, "transformer_heads"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_impossible_settings_are_named(wrong, name):
    with pytest.raises(ConfigError, match=name):
        SEANetConfig(**wrong)
