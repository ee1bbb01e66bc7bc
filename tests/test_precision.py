"""The fast paths: the same network in time-major float32 and bfloat16."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speechtok.errors import ConfigError
from speechtok.nn import timemajor
from speechtok.nn.conv import Conv1d
from speechtok.nn.fastframe import FastBlock
from speechtok.nn.frame import ConvNeXtBlock
from speechtok.nn.precision import CPU_FEATURES, Search, multiplies_bf16, prepared, settled
from speechtok.nn.quantizers import ResidualVQ
from speechtok.tokenizers.registry import load
from speechtok.verify import verify
from tiny import HOP, RATE, samples, signal, tiny_codec, tiny_tokenizer

FAST = ("seanet", "seanet-lstm", "seanet-causal")
LENGTHS = (1, HOP - 1, HOP, HOP + 1, 3 * HOP + 7, 4013)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Size of the difference against the size of what is expected."""
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def both(kind: str, precision: str):
    codec = tiny_codec(kind)
    return codec, prepared(codec, precision)


@pytest.mark.parametrize("kind", FAST)
@torch.inference_mode()
def test_time_major_layers_compute_the_same_network(kind):
    codec, fast = both(kind, "fp32")
    assert isinstance(fast.encoder, timemajor.Encoder) and isinstance(fast.decoder, timemajor.Decoder)
    for length in LENGTHS:
        wave = torch.tensor(samples(length).samples)[None]
        latent = codec.encoder(wave)
        assert relative(fast.encoder(wave), latent) < 1e-5
        assert relative(fast.decoder(latent), codec.decoder(latent)) < 1e-5
    assert fast.encoder_context() == codec.encoder_context()


@pytest.mark.parametrize("kind", FAST)
@torch.inference_mode()
def test_pieces_of_time_are_the_whole_signal(kind, monkeypatch):
    codec, whole = both(kind, "fp32")
    monkeypatch.setattr(timemajor, "PIECE", 500)
    pieces = prepared(codec, "fp32")
    assert pieces.encoder.before.frames < 20 < whole.encoder.before.frames
    for length in (40 * HOP, 63 * HOP - 1, 150 * HOP + 1):
        wave = torch.tensor(samples(length).samples)[None]
        latent = whole.encoder(wave)
        assert relative(pieces.encoder(wave), latent) < 1e-5
        assert relative(pieces.decoder(latent), whole.decoder(latent)) < 1e-5


@pytest.mark.parametrize("frames", [9, 400])  # a product of copied windows, and the library's convolution
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 1), (3, 1, 4), (10, 5, 1), (1, 1, 1)])
@torch.inference_mode()
def test_windows_of_few_and_of_many_frames(frames, kernel, stride, dilation):
    torch.manual_seed(0)
    conv = Conv1d(6, 8, kernel, stride, dilation)
    x = torch.randn(2, 6, frames)
    found = timemajor.Windows(conv, torch.float32)(x.transpose(1, 2))
    assert relative(found, conv(x).transpose(1, 2)) < 1e-6


@pytest.mark.parametrize("kind", [*FAST, "seanet-lstm"])
@torch.inference_mode()
def test_padding_and_company_change_nothing(kind):
    codec, fast = both(kind, "fp32")
    lengths = torch.tensor([1200, 403, 1])
    wave = torch.zeros(3, 1200)
    for row, length in zip(wave, lengths.tolist(), strict=True):
        row[:length] = torch.tensor(samples(length, seed=length).samples)
    noisy = torch.where(torch.arange(1200) < lengths[:, None], wave, 7.0)  # whatever lies past an end
    together = fast.encoder(noisy, lengths)
    assert relative(together, codec.encoder(wave, lengths)) < 1e-5
    frames = -(-lengths // HOP)
    sound = fast.decoder(together, frames)
    for i, length in enumerate(lengths.tolist()):
        alone = fast.encoder(wave[i : i + 1, :length])
        assert relative(together[i : i + 1, : alone.shape[1]], alone) < 1e-5
        assert relative(sound[i : i + 1, : alone.shape[1] * HOP], fast.decoder(alone)) < 1e-5


@torch.inference_mode()
def test_snake_and_true_skips_have_a_time_major_form():
    from speechtok.nn.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder

    config = SEANetConfig(n_filters=4, strides=(4, 2), activation="Snake", true_skip=True, sequence="none")
    torch.manual_seed(0)
    encoder, decoder = SEANetEncoder(config, 16).eval(), SEANetDecoder(config, 16).eval()
    wave = torch.randn(2, 403)
    latent = encoder(wave)
    assert relative(timemajor.Encoder(encoder, torch.float32)(wave), latent) < 1e-5
    assert relative(timemajor.Decoder(decoder, torch.float32)(latent), decoder(latent)) < 1e-5


@pytest.mark.parametrize("kind", [*FAST, "frame"])
@torch.inference_mode()
def test_bf16_is_near_and_everything_leaves_in_float32(kind):
    codec, fast = both(kind, "bf16")
    wave = torch.tensor(signal(2.0, seed=3).samples)[None]
    latent = codec.encoder(wave)
    found = fast.encoder(wave)
    assert found.dtype == torch.float32 and relative(found, latent) < 0.02
    sound = fast.decoder(latent)
    assert sound.dtype == torch.float32
    if kind != "frame":  # whose random phases are all near ties
        assert relative(sound, codec.decoder(latent)) < 0.02
    assert all(parameter.dtype == torch.float32 for parameter in codec.parameters())


@pytest.mark.parametrize("kind", FAST)
def test_codes_of_the_fast_paths(kind):
    slow = tiny_codec(kind)
    audio = signal(6.0, seed=5)
    with torch.inference_mode():
        expected = slow.encode(torch.tensor(audio.samples)[None])[0].numpy()
    equal = {name: tiny_tokenizer(kind, precision=name).encode(audio).codes == expected for name in ("fp32", "bf16")}
    assert equal["fp32"].mean() >= 0.999
    assert equal["bf16"][0].mean() >= 0.95  # 16 random dimensions; the trained codecs' shares are in docs/cost.md


@pytest.mark.parametrize("own_space", [0, 6])
@torch.inference_mode()
def test_search_gives_the_quantizer_its_own_codes(own_space):
    torch.manual_seed(0)
    quantizer = ResidualVQ(16, 32, 4, own_space=own_space)
    for layer in quantizer.layers:
        layer.embed.normal_()
    latent = torch.randn(3, 50, own_space + 16)
    search = Search(quantizer)
    for levels in (None, 1, 3):
        assert torch.equal(search(latent, levels), quantizer.encode(latent, levels))


@pytest.mark.parametrize("causal", [False, True])
@torch.inference_mode()
def test_fast_blocks_of_the_frame_codec_compute_the_same(causal):
    torch.manual_seed(0)
    block = ConvNeXtBlock(24, 3, 7, causal, 0.3).eval()
    x = torch.randn(2, 11, 24)
    mask = (torch.arange(11) < torch.tensor([[11], [4]])).unsqueeze(2).float()
    for given in (None, mask):
        expected = block(x, given)
        assert relative(FastBlock(block, torch.float32)(x, given), expected) < 1e-6
        assert relative(FastBlock(block, torch.bfloat16)(x, given), expected) < 1e-2


def test_precisions_share_a_fingerprint_and_read_each_other():
    full, half = tiny_tokenizer("seanet"), tiny_tokenizer("seanet", precision="bf16")
    assert (full.precision, half.precision) == ("fp32", "bf16")
    assert full.describe()["precision"] == "fp32"
    audio = signal(1.0)
    first, second = full.decode(half.encode(audio)).samples, half.decode(half.encode(audio)).samples
    assert np.abs(first - second).max() < 0.05 * np.abs(first).max()
    other = half.in_precision("fp32")
    assert np.array_equal(other.encode(audio).codes, full.encode(audio).codes)
    assert half.precision == "bf16" and half.runner is not other.runner


def test_auto_goes_by_what_the_processor_can_do(monkeypatch):
    codec, cpu = tiny_codec("seanet"), torch.device("cpu")
    for found, expected in ((dict.fromkeys(CPU_FEATURES, False), "fp32"), ({"avx512_bf16": True}, "bf16")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert settled("auto", codec, cpu, "tiny") == expected == ("bf16" if multiplies_bf16(cpu) else "fp32")
        assert settled("auto", tiny_codec("seanet-transformer"), cpu, "tiny") == "fp32"


def test_refusals_name_the_model_and_the_way_out():
    with pytest.raises(ConfigError, match=r"tiny-seanet-transformer has no path in bf16; use --precision fp32 or auto"):
        tiny_tokenizer("seanet-transformer", precision="bf16")
    with pytest.raises(ConfigError, match="precision is 'int4'; it must be fp32, bf16 or auto"):
        tiny_tokenizer("seanet", precision="int4")
    with pytest.raises(ConfigError, match="logmel-soft has no precision 'bf16', it computes in fp32"):
        load("logmel-soft", precision="bf16")
    assert load("logmel-soft", precision="auto").precision == "fp32"


def test_verify_prints_flips():
    checks = {check.name: check for check in verify(tiny_tokenizer("seanet"), [signal(1.0, RATE)])}
    check = checks["bf16 against fp32"]
    assert check.passed is None and "of the codes of level 1 differ" in check.measured
    assert 0 <= check.numbers["first_level_flips"] <= check.numbers["flips"] < 0.5
    assert check.numbers["decode_snr_db"] > 25


def test_a_stream_refuses_bf16(cli):
    code, _, err = cli("encode", "-", "--stream", "--precision", "bf16")
    assert code == 2 and "--stream computes in fp32" in err[0]
