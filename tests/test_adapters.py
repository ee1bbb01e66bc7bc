"""Codecs of transformers behind the contract, on tiny random models; the published files were out of reach."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import speechtok
from foreign import KINDS, changed, copy_of, foreign_model, save_all
from speechtok.audio import Audio
from speechtok.errors import NotSupportedError, TokenError
from speechtok.tokenizers.adapters import load as adapters
from speechtok.verify import verify
from tiny import signal

SEMANTIC = {"encodec": (), "dac": (), "mimi": (0,), "xcodec": (0, 1, 2, 3)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def tokenizers(folders):
    return {kind: speechtok.load(folder) for kind, folder in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def tokenizer(kind, tokenizers):
    return tokenizers[kind]


@pytest.fixture(scope="module")
def models():
    """The models themselves, made anew and never saved."""
    return {kind: foreign_model(kind) for kind in KINDS}


# the same codes and the same sound as transformers


@torch.inference_mode()
def direct_codes(kind, model, samples, levels):
    """What transformers gives for a signal of whole frames, by its own call for so many levels."""
    wave = torch.tensor(samples)[None, None]
    if kind == "dac":
        return model.encode(wave, n_quantizers=levels).audio_codes[0].numpy()
    if kind == "mimi":
        return model.encode(wave, num_quantizers=levels).audio_codes[0].numpy()
    bandwidth = {"encodec": {1: 1.2, 2: 2.4, 4: 4.8}, "xcodec": {2: 0.5, 4: 1.0}}[kind][levels]
    codes = model.encode(wave, bandwidth=bandwidth).audio_codes
    return (codes[0, 0] if kind == "encodec" else codes[0]).numpy()


@torch.inference_mode()
def direct_sound(kind, model, codes):
    codes = torch.tensor(codes)[None]
    decoded = model.decode(codes[None], [None]) if kind == "encodec" else model.decode(audio_codes=codes)
    return decoded.audio_values.flatten().numpy()


@pytest.mark.parametrize("levels", [2, 4])
def test_codes_are_those_of_transformers(kind, tokenizer, models, levels):
    audio = Audio(signal(1.3, tokenizer.sample_rate).samples[: 20 * tokenizer.hop], tokenizer.sample_rate)
    codes = tokenizer.encode(audio, levels=levels).codes
    direct = direct_codes(kind, models[kind], audio.samples, levels)
    assert codes.shape == (levels, 20)
    assert (codes == direct).all()
    assert len(np.unique(codes[0])) >= 4, "a model that always answers the same proves nothing"


@pytest.mark.parametrize("extra", [0, 1, 7, -1], ids=lambda n: f"{n:+d}")
def test_native_lengths_are_kept_or_restored(kind, tokenizer, models, extra):
    """EnCodec and Mimi end a frame in their own way, which stays; DAC and X-Codec get the zeros of their extractor."""
    count = 12 * tokenizer.hop + extra
    samples = signal(1, tokenizer.sample_rate).samples[:count]
    frames = -(-count // tokenizer.hop)
    native = np.pad(samples, (0, frames * tokenizer.hop - count)) if kind in ("dac", "xcodec") else samples
    codes = tokenizer.encode(Audio(samples, tokenizer.sample_rate)).codes
    assert (codes == direct_codes(kind, models[kind], native, 4)).all()


def test_sound_is_that_of_transformers(kind, tokenizer, models):
    tokens = tokenizer.encode(signal(1.0, tokenizer.sample_rate))
    direct = direct_sound(kind, models[kind], tokens.codes)
    ours = tokenizer.decode(tokens).samples
    shared = min(len(ours), len(direct))
    assert len(ours) == tokens.num_samples
    assert len(ours) - shared < tokenizer.hop
    assert np.abs(ours[:shared]).max() > 0
    assert np.array_equal(ours[:shared], direct[:shared])
    assert not ours[shared:].any()


def test_dac_with_an_odd_stride_ends_in_zeros(tokenizers, models):
    tokenizer = tokenizers["dac"]
    tokens = tokenizer.encode(Audio(signal(1, 8000).samples[: 10 * tokenizer.hop], 8000))
    native = len(direct_sound("dac", models["dac"], tokens.codes))
    assert 0 < 10 * tokenizer.hop - native < tokenizer.hop
    assert len(tokenizer.decode(tokens)) == 10 * tokenizer.hop


@given(data=st.data(), count=st.integers(1, 700))
def test_length_law(tokenizers, data, count):
    tokenizer = tokenizers[data.draw(st.sampled_from(KINDS))]
    audio = Audio(signal(0.1, tokenizer.sample_rate).samples[:count], tokenizer.sample_rate)
    tokens = tokenizer.encode(audio)
    assert tokens.frames == -(-len(audio) // tokenizer.hop)
    assert len(tokenizer.decode(tokens)) == len(audio)


# the promises


def test_every_promise_holds(tokenizer):
    audios = [signal(seconds, tokenizer.sample_rate, seed=i) for i, seconds in enumerate((3.0, 1.0, 2.0))]
    checks = verify(tokenizer, audios)
    assert {check.name: check.measured for check in checks if check.passed is False} == {}


def test_which_windows_are_exact(tokenizers):
    exact = {kind: tokenizer.exact_windows for kind, tokenizer in tokenizers.items()}
    both, none = (True, True), (False, False)
    assert exact == {"encodec": none, "dac": both, "mimi": both, "xcodec": none}


@pytest.mark.parametrize("kind", ["dac", "mimi"])
def test_nothing_beyond_the_stated_context_reaches_a_code(kind, tokenizers):
    """The overlap of windows is what the model sees: noise outside of it changes no code."""
    tokenizer = tokenizers[kind]
    left, right = tokenizer.codec.encoder_context()
    frame = left + 2
    samples = signal((frame + right + 10) * tokenizer.hop / tokenizer.sample_rate, tokenizer.sample_rate).samples.copy()
    noisy = samples.copy()
    noisy[: 2 * tokenizer.hop] = 0.9 * np.sign(noisy[: 2 * tokenizer.hop] + 0.01)
    noisy[(frame + right + 1) * tokenizer.hop :] *= -3
    before, after = (tokenizer.encode(Audio(wave, tokenizer.sample_rate)).codes for wave in (samples, noisy))
    assert (before[:, frame] == after[:, frame]).all()
    assert (before[:, :2] != after[:, :2]).any()


@pytest.mark.parametrize(("kind", "dtype", "rounding"), [("dac", torch.double, 1e-13), ("mimi", torch.float, 1e-5)])
def test_the_stated_context_of_the_decoder_is_enough_and_needed(kind, dtype, rounding, models):
    """Equal but for rounding with the context, different with a third of it; Mimi's rotations exist in float only."""
    codec = adapters.KINDS[kind](copy.deepcopy(models[kind]).to(dtype), {})
    left, right = codec.decoder_context()
    codes = torch.randint(32, (1, 4, 4 * left + 20))
    start, stop, hop = 2 * left, 2 * left + 10, codec.config.hop
    with torch.inference_mode():
        whole = codec.decode(codes)[0, start * hop : stop * hop]
        enough = codec.decode(codes[..., start - left : stop + right])[0, left * hop : (left + 10) * hop]
        few = codec.decode(codes[..., start - left // 3 : stop + right])[0, left // 3 * hop : (left // 3 + 10) * hop]
    scale = whole.abs().max()
    assert (whole - enough).abs().max() < rounding * scale
    assert (whole - few).abs().max() > 10 * rounding * scale


def test_a_batch_is_never_padded_together(kind, tokenizer):
    audios = [signal(seconds, tokenizer.sample_rate, seed=3) for seconds in (0.31, 0.5, 0.2)]
    for tokens, audio in zip(tokenizer.encode_batch(audios, exact=False, batch_size=3), audios, strict=True):
        assert tokens == tokenizer.encode(audio)


# levels


def test_levels_by_design(kind, tokenizer):
    assert tokenizer.semantic_levels == SEMANTIC[kind]
    assert tokenizer.scheme == ("E" if SEMANTIC[kind] else "A")


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_fewer_levels_are_the_first_ones(tokenizer, levels):
    audio = signal(0.5, tokenizer.sample_rate)
    whole = tokenizer.encode(audio)
    assert tokenizer.encode(audio, levels=levels) == whole.take(levels)
    assert len(tokenizer.decode(whole.take(levels))) == len(audio)


def test_levels_add_up(kind, tokenizer):
    """Latents are sums over levels, so what follows level 0 decodes alone, unlike the whole and unlike level 0."""
    tokens = tokenizer.encode(signal(0.5, tokenizer.sample_rate))
    rest = tokenizer._decode(tokens.codes[1:], 1)
    assert len(rest) == tokens.frames * tokenizer.hop
    first = tokenizer._decode(tokens.codes[:1], 0)
    assert not np.allclose(rest, tokenizer._decode(tokens.codes, 0))
    assert not np.allclose(rest, first)
    again = tokenizer._decode(tokens.codes, 0)
    assert np.array_equal(again, tokenizer._decode(tokens.codes, 0)), "the model itself must stay whole"


def test_mimi_decodes_its_two_halves(tokenizers):
    tokens = tokenizers["mimi"].encode(signal(0.5, 8000))
    assert (tokens.semantic.levels, tokens.acoustic.levels) == (1, 3)
    assert len(tokenizers["mimi"].decode(tokens.acoustic)) == tokens.num_samples


@pytest.mark.parametrize(("bitrate", "levels"), [(100, 1), (1200, 1), (2400, 2), (4799, 3), (1e9, 4)], ids=str)
def test_levels_for_a_bitrate(tokenizers, bitrate, levels):
    tokenizer = tokenizers["encodec"]
    assert tokenizer.levels_for(bitrate) == levels
    assert tokenizer.bitrate == 4800


# what the files say


def test_the_rate_is_converted(tokenizer):
    audio = signal(0.5, 22050)
    assert tokenizer.encode(audio) == tokenizer.encode(audio.resample(tokenizer.sample_rate))


def test_the_fingerprint_follows_what_decides_codes(kind, folders, tokenizers, tmp_path):
    own = tokenizers[kind].fingerprint
    same = changed(folders[kind], tmp_path / "same", transformers_version="0.0", _name_or_path="elsewhere")
    other = changed(folders[kind], tmp_path / "other", "preprocessor_config.json", do_normalize=True)
    assert speechtok.load(same).fingerprint == own
    assert speechtok.load(other).fingerprint != own
    weights = load_file(folders[kind] / "model.safetensors")
    name = next(key for key in weights if key.endswith(("conv1.weight", "layers.0.conv.weight", "original1")))
    weights[name] *= 1.001
    louder = copy_of(folders[kind], tmp_path)
    save_file(weights, louder / "model.safetensors", metadata={"format": "pt"})
    assert speechtok.load(louder).fingerprint != own


def test_foreign_tokens_are_refused(tokenizers):
    tokens = tokenizers["dac"].encode(signal(0.2, 8000))
    with pytest.raises(TokenError, match="were made by dac"):
        tokenizers["mimi"].decode(tokens)


def test_a_preprocessor_that_normalises_is_honoured(folders, tokenizers, tmp_path):
    tokenizer = speechtok.load(changed(folders["dac"], tmp_path, "preprocessor_config.json", do_normalize=True))
    audio = signal(0.5, 8000)
    quiet = Audio(0.05 * audio.samples + 0.01, 8000)
    assert (tokenizer.encode(quiet).codes == tokenizer.encode(audio).codes).mean() > 0.95
    assert (tokenizers["dac"].encode(quiet).codes == tokenizers["dac"].encode(audio).codes).mean() < 0.9


def test_the_hop_is_not_the_one_that_dac_states(folders, tokenizers, tmp_path):
    """The published 16 and 24 kHz files say 512 where their strides make 320."""
    tokenizer = speechtok.load(changed(folders["dac"], tmp_path, hop_length=512))
    assert tokenizer.hop == 40
    assert (tokenizer.encode(signal(0.5)).codes == tokenizers["dac"].encode(signal(0.5)).codes).all()


def test_streaming_is_refused_in_one_line(tokenizer):
    with pytest.raises(NotSupportedError, match="cannot stream"):
        tokenizer.stream()
