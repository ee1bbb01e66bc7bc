"""Codecs whose decoder is told the voice: the contract's own tests hold them, too; here is what only they have."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

import speechtok
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.nn.codec import CodecConfig
from speechtok.nn.pooling import statistics, sums
from speechtok.nn.timbre import TimbreConfig, TimbreEncoder
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokenizers.conversion import convert_voice
from speechtok.tokenizers.features import CodecFeatures
from speechtok.tokenizers.soft import SoftTokenizer
from speechtok.tokenizers.timbre import TimbreTokenizer
from speechtok.tokens import Tokens
from tiny import HOP, RATE, TIMBRE, samples, signal, tiny_codec, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer("frame-timbre")


def test_statistics_are_those_of_the_real_frames_and_add_up():
    x, mask = torch.randn(2, 9, 3), torch.arange(9) < torch.tensor([[9], [5]])
    found = statistics(*sums(x, mask))
    for row, count in zip(range(2), (9, 5), strict=True):
        real = x[row, :count]
        torch.testing.assert_close(found[row], torch.cat([real.mean(0), real.std(0, unbiased=False)]))
    pieces = [sums(x[:, part]) for part in (slice(0, 4), slice(4, 9))]
    whole = statistics(*(sum(parts) for parts in zip(*pieces, strict=True)))
    torch.testing.assert_close(whole, statistics(*sums(x)))


@pytest.mark.parametrize("length", [1, HOP, 3 * HOP + 1, 4000])
def test_padding_changes_no_vector(length):
    torch.manual_seed(0)
    encoder = TimbreEncoder(TimbreConfig(**TIMBRE), RATE, HOP)
    wave = torch.randn(1, length)
    padded = torch.cat([wave, torch.zeros(1, 777)], 1)
    alone, together = encoder(wave), encoder(padded, torch.tensor([length]))
    assert alone.shape == (1, 6)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_claimed_context_of_the_encoder_is_the_true_one():
    torch.manual_seed(0)
    encoder = TimbreEncoder(TimbreConfig(**TIMBRE), RATE, HOP)
    wave = torch.randn(1, 60 * HOP, requires_grad=True)
    gradient = torch.autograd.grad(encoder.frames(wave)[0, 30].sum(), wave)[0]
    places = gradient.view(60, HOP).any(1).nonzero().flatten()
    left, right = encoder.context()
    assert 30 - left <= int(places.min()) and int(places.max()) <= 30 + right


def test_a_fresh_decoder_is_told_nothing_and_learns_from_its_gradient():
    codec = tiny_codec("frame")
    voiced = CodecConfig.from_dict({**codec.config.to_dict(), "timbre": asdict(TimbreConfig(**TIMBRE))})
    torch.manual_seed(0)
    other = type(codec)(voiced)
    latent, timbre = torch.randn(2, 5, 16), torch.randn(2, 6)
    assert torch.equal(other.voiced(latent, timbre), latent)
    other.decoder(other.voiced(latent, other.timbre(torch.randn(2, 800)))).square().mean().backward()
    assert other.film.outputs.weight.grad.abs().sum() > 0
    assert codec.timbre(torch.randn(1, 800)) is None


def test_tokens_carry_the_voice_and_decode_in_it(tokenizer):
    one, other = signal(1.0), signal(1.3, seed=5)
    tokens = tokenizer.encode(one)
    assert tokens.timbre.shape == (6,) and np.array_equal(tokens.timbre, tokenizer.timbre(one))
    converted = tokenizer.with_timbre(tokens, other)
    assert np.array_equal(converted.codes, tokens.codes) and not np.array_equal(converted.timbre, tokens.timbre)
    assert not np.allclose(tokenizer.decode(converted).samples, tokenizer.decode(tokens).samples)
    for reference in (tokenizer.encode(other), tokenizer.timbre(other)):
        assert tokenizer.with_timbre(tokens, reference) == converted
    assert np.array_equal(tokenizer.encode(one, levels=1).timbre, tokens.timbre)


@pytest.mark.parametrize("exact", [True, False])
def test_batches_carry_the_voices_of_single_recordings(tokenizer, exact):
    audios = [samples(count, seed=count) for count in (3000, 1, 1501)]
    batch = tokenizer.encode_batch(audios, exact=exact)
    assert all(np.array_equal(one.timbre, tokenizer.timbre(audio)) for one, audio in zip(batch, audios, strict=True))


def test_windows_change_no_voice_but_for_rounding(tokenizer):
    audio = signal(5.0)
    np.testing.assert_allclose(tokenizer.in_windows(0.3).timbre(audio), tokenizer.timbre(audio), atol=1e-4)


def test_recordings_of_other_rates_are_resampled_for_the_voice(tokenizer):
    audio = signal(1.0, rate=16000)
    assert np.array_equal(tokenizer.encode(audio).timbre, tokenizer.timbre(audio.resample(RATE)))


def test_token_files_keep_the_voice(tokenizer, tmp_path):
    tokens = tokenizer.encode(signal(0.5))
    tokens.save(tmp_path / "one.tokens.safetensors")
    loaded = Tokens.load(tmp_path / "one.tokens.safetensors")
    assert loaded == tokens
    assert np.array_equal(tokenizer.decode(loaded).samples, tokenizer.decode(tokens).samples)


def test_folders_keep_model_and_fingerprint(tokenizer, tmp_path):
    save_codec(tokenizer.codec, tmp_path / "model")
    loaded = speechtok.load(tmp_path / "model")
    assert type(loaded) is TimbreTokenizer and loaded.fingerprint == tokenizer.fingerprint
    audio = signal(0.5)
    assert np.array_equal(loaded.encode(audio).timbre, tokenizer.encode(audio).timbre)
    header = json.loads((tmp_path / "model/config.json").read_text())
    header["codec"]["timbre"]["dimension"] = 7
    (tmp_path / "model/config.json").write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        speechtok.load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_codec_without_timbre_says_nothing_of_it(tmp_path):
    save_codec(tiny_codec("frame"), tmp_path / "model")
    assert "timbre" not in json.loads((tmp_path / "model/config.json").read_text())["codec"]
    assert type(speechtok.load(tmp_path / "model")) is CodecTokenizer


def test_the_voice_is_part_of_the_fingerprint():
    codec = tiny_codec("frame-timbre")
    before = TimbreTokenizer(codec, "a").fingerprint
    with torch.no_grad():
        codec.timbre_encoder.project.bias[0] += 1e-3
    changed = TimbreTokenizer(codec, "a").fingerprint
    with torch.no_grad():
        codec.film.hidden.bias[0] += 1e-3
    assert len({before, changed, TimbreTokenizer(codec, "a").fingerprint}) == 3


def test_fingerprints_of_bundled_models_stay():
    assert speechtok.load("speechtok-base").fingerprint == "358d3266c64e0c24"


@pytest.mark.parametrize(
    "change, message",
    [({"timbre": None}, "no timbre.*with_timbre"), ({"timbre": np.ones(5, np.float32)}, "6 numbers, not 5")],
    ids=["none", "size"],
)
def test_tokens_without_the_right_voice_are_refused(tokenizer, change, message):
    tokens = tokenizer.encode(signal(0.2))
    for refused in (tokenizer.decode, lambda one: tokenizer.with_timbre(tokens, one)):
        with pytest.raises(TokenError, match=message) as caught:
            refused(replace(tokens, **change))
        assert "\n" not in str(caught.value)


def test_voices_of_another_tokenizer_are_refused(tokenizer):
    other = tiny_tokenizer("frame-timbre", seed=1).encode(signal(0.2))
    with pytest.raises(TokenError, match="were made by"):
        tokenizer.with_timbre(other, signal(0.2))
    with pytest.raises(TokenError, match="were made by"):
        tokenizer.with_timbre(tokenizer.encode(signal(0.2)), other)


def test_latents_have_no_voice(tokenizer):
    soft = SoftTokenizer(CodecFeatures(tokenizer), "soft")
    with pytest.raises(NotSupportedError, match="decodes in a voice"):
        soft.decode(soft.encode(signal(0.2)))


def test_sizes_are_checked():
    with pytest.raises(ConfigError, match=r"codec\.timbre\.width"):
        TimbreConfig(width=0)


def test_a_voice_is_taken_on_as_a_whole(tokenizer):
    source, reference = signal(0.4), signal(0.7, seed=3)
    tokens, voiced = tokenizer.encode(source), tokenizer.with_voice(reference)
    wanted = tokenizer.decode(tokenizer.with_timbre(tokens, reference)).samples
    assert np.array_equal(voiced.decode(tokens).samples, wanted)
    assert np.array_equal(voiced.decode(replace(tokens, timbre=None)).samples, wanted)
    assert np.array_equal(convert_voice(tokenizer, source, reference).samples, wanted)
    assert not np.array_equal(tokenizer.decode(tokens).samples, wanted)
