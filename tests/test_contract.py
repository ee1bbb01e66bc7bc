"""What every codec tokenizer promises, on tiny random models of each kind."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from speechtok.audio import Audio, read
from speechtok.clips import bundled_clips
from speechtok.errors import AudioError, ConfigError, TokenError
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.verify import default_audio, verify
from tiny import HOP, KINDS, RATE, samples, signal, tiny_codec, tiny_tokenizer

tokenizer = cache(tiny_tokenizer)
every_kind = pytest.mark.parametrize("kind", KINDS)
FINITE = [kind for kind in KINDS if kind != "seanet-lstm"]
few = settings(deadline=None, max_examples=15)
lengths = st.integers(1, 5 * HOP)


@every_kind
@given(length=lengths)
@few
def test_frames_are_samples_over_hop_rounded_up(kind, length):
    tokens = tokenizer(kind).encode(samples(length))
    assert tokens.codes.shape == (4, -(-length // HOP))
    assert tokens.num_samples == length


@every_kind
@given(length=lengths)
@few
def test_decode_gives_exactly_what_was_encoded(kind, length):
    tokens = tokenizer(kind).encode(samples(length))
    audio = tokenizer(kind).decode(tokens)
    assert (len(audio), audio.rate) == (length, RATE)


@every_kind
def test_codes_use_the_codebook(kind):
    """Guards the other tests: equal codes prove nothing where all codes are one."""
    codes = tokenizer(kind).encode(signal(3)).codes
    assert all(len(np.unique(row)) >= 12 for row in codes)


@every_kind
@given(counts=st.lists(lengths, min_size=1, max_size=5))
@few
def test_exact_batch_equals_one_by_one(kind, counts):
    audios = [samples(count, seed=i) for i, count in enumerate(counts)]
    assert tokenizer(kind).encode_batch(audios) == [tokenizer(kind).encode(audio) for audio in audios]


@every_kind
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_shared_passes_give_the_codes_of_single_ones(kind, batch_size):
    audios = [samples(count, seed=count) for count in (3000, 1, 3000, 1501, 2999, 40)]
    single = [tokenizer(kind).encode(audio) for audio in audios]
    shared = tokenizer(kind).encode_batch(audios, exact=False, batch_size=batch_size)
    assert [tokens.num_samples for tokens in shared] == [len(audio) for audio in audios]
    assert flips(single, shared) <= 0.01


@every_kind
def test_shared_passes_really_share(kind, monkeypatch):
    audios = [samples(count, seed=i) for i, count in enumerate((400, 361, 400, 300))]
    model, shapes = tokenizer(kind), []
    encode = model.runner.encode
    monkeypatch.setattr(
        model.runner, "encode", lambda wave, *rest: shapes.append(tuple(wave.shape)) or encode(wave, *rest)
    )
    model.encode_batch(audios, exact=False)
    assert sorted(shapes) == [(4, 400)]


@pytest.mark.parametrize("kind", FINITE)
@given(length=st.integers(1, 60 * HOP), seconds=st.sampled_from([0.005, 0.04, 0.1]))
@few
def test_windows_give_the_codes_and_samples_of_one_piece(kind, length, seconds):
    whole, cut = tokenizer(kind), tokenizer(kind).in_windows(seconds)
    tokens = whole.encode(samples(length))
    assert flips([tokens], [cut.encode(samples(length))]) <= 0.01
    assert np.abs(whole.decode(tokens).samples - cut.decode(tokens).samples).max() <= 1e-5


@pytest.mark.parametrize("kind", FINITE)
def test_the_claimed_context_is_the_true_one(kind):
    """By gradients: which input frames move the output of one frame in the middle."""
    codec, frames, middle = tiny_codec(kind), 60, 30
    latent = torch.randn(1, frames, 16, requires_grad=True)
    own = codec.decoder(latent)[0, middle * HOP : (middle + 1) * HOP]
    moved = [torch.autograd.grad(sample, latent, retain_graph=True)[0][0].any(1) for sample in own]
    assert reach(torch.stack(moved).any(0), middle) == codec.decoder_context()
    wave = torch.randn(1, frames * HOP, requires_grad=True)
    gradient = torch.autograd.grad(codec.encoder(wave)[0, middle].sum(), wave)[0]
    assert reach(gradient.view(frames, HOP).any(1), middle) == codec.encoder_context()


def reach(moved, middle):
    """Frames to the left and to the right of the middle one."""
    places = moved.nonzero().flatten()
    return middle - int(places.min()), int(places.max()) - middle


@pytest.mark.parametrize("kind", FINITE)
def test_memory_is_bounded(kind, monkeypatch):
    model, sizes = tokenizer(kind).in_windows(0.5), []
    runs = model.runner
    encode, decode = runs.encode, runs.decode
    monkeypatch.setattr(runs, "encode", lambda wave, *rest: sizes.append(wave.shape[1]) or encode(wave, *rest))
    monkeypatch.setattr(runs, "decode", lambda codes, *rest: sizes.append(codes.shape[2] * HOP) or decode(codes, *rest))
    model.decode(model.encode(signal(5)))
    context = max(sum(model.codec.encoder_context()), sum(model.codec.decoder_context()))
    assert len(sizes) >= 20
    assert max(sizes) <= 0.5 * RATE + context * HOP


def test_unbounded_context_is_exact_up_to_a_length_and_says_so_beyond():
    model = tokenizer("seanet-lstm").in_windows(1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.encode(signal(1.0)) == tokenizer("seanet-lstm").encode(signal(1.0))
    with pytest.warns(UserWarning, match="codes near seams may differ"):
        tokens = model.encode(signal(3.0))
    assert tokens.frames == 3 * RATE // HOP


@every_kind
def test_fewer_levels_are_the_first_of_all(kind):
    audio = signal(0.5)
    assert tokenizer(kind).encode(audio, levels=2) == tokenizer(kind).encode(audio).take(2)


@every_kind
@pytest.mark.parametrize("part", ["semantic", "acoustic"])
def test_a_block_of_levels_decodes_on_its_own(kind, part):
    tokens = tokenizer(kind).encode(signal(0.5))
    audio = tokenizer(kind).decode(getattr(tokens, part))
    assert len(audio) == tokens.num_samples
    assert not np.allclose(audio.samples, tokenizer(kind).decode(tokens).samples)


def test_other_rates_are_resampled():
    audio = signal(1.0, rate=44100)
    tokens = tokenizer("frame").encode(audio)
    assert (tokens.num_samples, tokens.sample_rate) == (RATE, RATE)
    assert tokens == tokenizer("frame").encode(audio.resample(RATE))


@pytest.mark.parametrize("levels", [0, 5, -1])
def test_levels_out_of_range_are_refused(levels):
    with pytest.raises(ConfigError, match="give 1 to 4"):
        tokenizer("frame").encode(signal(0.1), levels=levels)


def test_bare_arrays_are_refused_because_their_rate_is_unknown():
    with pytest.raises(AudioError, match=r"speechtok\.read"):
        tokenizer("frame").encode(signal(0.1).samples)


def test_foreign_tokens_are_refused_naming_both():
    ours, theirs = tokenizer("frame"), tokenizer("frame", seed=1)
    with pytest.raises(TokenError) as caught:
        ours.decode(theirs.encode(signal(0.1)))
    assert ours.fingerprint in str(caught.value)
    assert theirs.fingerprint in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"hop": 20, "num_samples": 100},
        {"sample_rate": 16000},
        {"codebook_sizes": (32, 32, 32, 33)},
        {"first_level": 1},
    ],
    ids=["hop", "rate", "codebook", "level"],
)
def test_tokens_that_contradict_the_model_are_refused(change):
    model = tokenizer("frame")
    tokens = model.encode(samples(5 * HOP))
    if "num_samples" in change:
        change = {**change, "codes": tokens.codes}
    with pytest.raises(TokenError, match="contradict"):
        model.decode(replace(tokens, **{"semantic_levels": (), **change}))


def test_fingerprint_follows_weights_and_ignores_training_state():
    codec = tiny_codec()
    before = CodecTokenizer(codec, "a").fingerprint
    codec.quantizer.layers[0].cluster_size.mul_(2)
    assert CodecTokenizer(codec, "b").fingerprint == before
    codec.quantizer.layers[0].embed[0, 0] += 1e-3
    assert CodecTokenizer(codec, "a").fingerprint != before


def test_an_unknown_device_is_one_line():
    with pytest.raises(ConfigError, match="use cpu"):
        tiny_tokenizer(device="nowhere")


@every_kind
def test_verify_finds_every_promise_kept(kind):
    checks = verify(tokenizer(kind), [signal(2.0), signal(1.3, seed=1)])
    assert {check.name: check.measured for check in checks if check.passed is False} == {}


BREAKS = {
    "length law": (
        "_encode",
        lambda self, wave, levels: np.zeros((levels, len(wave) // HOP + 1), dtype=np.int64),
    ),
    "round-trip length": (
        "_decode",
        lambda self, codes, first: np.zeros(max(1, codes.shape[1] * HOP - HOP), np.float32),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_verify_finds_a_broken_promise(name, monkeypatch):
    attribute, replacement = BREAKS[name]
    monkeypatch.setattr(CodecTokenizer, attribute, replacement)
    broken = [check.name for check in verify(tokenizer("frame"), [signal(1.0)]) if check.passed is False]
    assert name.replace("-", " ") in [one.replace("-", " ") for one in broken]  # a check that raises has no hyphen


def test_verify_finds_windows_without_context(monkeypatch):
    model = tokenizer("frame")
    monkeypatch.setattr(model.codec, "encoder_context", lambda: (0, 0))
    monkeypatch.setattr(model.codec, "decoder_context", lambda: (0, 0))
    broken = [check.name for check in verify(model, [signal(1.0)]) if check.passed is False]
    assert {"long audio", "long decode"} <= set(broken)


def test_verify_finds_codes_that_change(monkeypatch):
    generator = np.random.default_rng(0)
    monkeypatch.setattr(
        CodecTokenizer,
        "_encode",
        lambda self, wave, levels: generator.integers(0, 32, (levels, -(-len(wave) // HOP))),
    )
    broken = {check.name for check in verify(tokenizer("frame"), [signal(1.0)]) if check.passed is False}
    assert {"same codes twice", "batch == single", "long audio"} <= broken


def test_verify_counts_any_exception_as_a_broken_promise(monkeypatch):
    def fail(self, codes, first):
        raise RuntimeError("out of memory\nsecond line")

    monkeypatch.setattr(CodecTokenizer, "_decode", fail)
    checks = verify(tokenizer("frame"), [signal(1.0)])
    (broken,) = [check for check in checks if check.name == "round trip length"]
    assert (broken.passed, broken.measured) == (False, "failed: RuntimeError: out of memory")
    assert [check.passed for check in checks if check.name == "length law"] == [True]


def test_default_recordings_are_among_the_bundled_ones():
    bundled = [read(clip.path) for clip in bundled_clips()]
    chosen = default_audio()
    assert len(chosen) == 4
    assert all(any(np.array_equal(audio.samples, one.samples) for one in bundled) for audio in chosen)


def flips(expected, found):
    """Share of codes that differ; shapes must not."""
    pairs = [(a.codes, b.codes) for a, b in zip(expected, found, strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    return sum((a != b).sum() for a, b in pairs) / sum(a.size for a, _ in pairs)


def test_audio_is_never_changed():
    audio = signal(0.3)
    before = audio.samples.copy()
    tokenizer("frame").encode(audio)
    assert np.array_equal(audio.samples, before)
    assert isinstance(audio, Audio)
