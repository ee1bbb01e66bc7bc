"""Streams: however a signal is cut, the codes and the sound of the whole; refusals; latency."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from speechtok.audio import Audio, RateStream, resampled_length
from speechtok.errors import AudioError, ConfigError, NotSupportedError, TokenError
from speechtok.nn import streaming_frame  # noqa: F401
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.quantizers import QuantizerConfig
from speechtok.nn.seanet import SEANetConfig
from speechtok.nn.streaming import streamed
from speechtok.tokenizers.codec import CodecTokenizer
from tiny import FRAME, HOP, RATE, SEANET, samples, signal, tiny_codec, tiny_tokenizer

RICH = {"n_residual_layers": 2, "activation": "Snake", "true_skip": True}
KINDS = {
    "frame-causal": tiny.SECTIONS["frame-causal"],
    "frame-causal-own": {"frame": tiny.FrameConfig(**FRAME, causal=True, consistency_iterations=0, own_space=6)},
    "seanet-causal": tiny.SECTIONS["seanet-causal"],
    "seanet-causal-lstm": {"seanet": SEANetConfig(**SEANET, sequence="lstm", lstm_layers=2, causal=True)},
    "seanet-causal-transformer": {
        "seanet": SEANetConfig(
            **SEANET, **RICH, sequence="transformer", transformer_heads=2, transformer_window=4, causal=True
        )
    },
}
every_kind = pytest.mark.parametrize("kind", KINDS)
cuts = st.lists(st.one_of(st.integers(0, 3), st.integers(HOP - 1, HOP + 1), st.integers(0, 400)), max_size=12)
_kept: dict[str, CodecTokenizer] = {}


def tokenizer(kind: str) -> CodecTokenizer:
    """One tokenizer of each kind."""
    if kind not in _kept:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tiny.SECTIONS, kind, KINDS[kind])
            _kept[kind] = tiny_tokenizer(kind)
    return _kept[kind]


def pieces(wave: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """``wave`` cut into pieces of these sizes, and what is left."""
    return np.split(wave, np.minimum(np.cumsum(sizes), len(wave))) if sizes else [wave]


def encoded(kind: str, wave: np.ndarray, sizes: list[int], **options) -> np.ndarray:
    """Codes of a stream that hears ``wave`` in pieces."""
    with tokenizer(kind).stream(**options) as stream:
        codes = [stream.encode(piece) for piece in pieces(wave, sizes)]
        return np.concatenate([*codes, stream.finish()], axis=1)


# the same codes and the same sound, however they are cut


@every_kind
@given(count=st.integers(1, 400), sizes=cuts, frames=st.sampled_from([1, 1, 2, 5]))
@settings(max_examples=12)
def test_any_cutting_gives_the_offline_codes(kind, count, sizes, frames):
    wave = samples(count, seed=count)
    codes = encoded(kind, wave.samples, sizes, frames=frames)
    assert np.array_equal(codes, encoded(kind, wave.samples, [], frames=frames))
    assert np.array_equal(codes, tokenizer(kind).encode(wave).codes)


@every_kind
@given(count=st.integers(1, 500), frames=st.integers(1, 4))
@settings(max_examples=8)
def test_latents_of_a_stream_are_those_of_one_pass(kind, count, frames):
    encoder = tokenizer(kind).codec.encoder
    wave, step = torch.tensor(samples(count, seed=count).samples)[None], frames * HOP
    with torch.inference_mode():
        whole, stream = encoder(wave), streamed(encoder)
        found = [stream(wave[:, at : at + step], at + step >= count) for at in range(0, count, step)]
    # relative to the largest: these random networks do not keep to a scale
    assert torch.allclose(torch.cat(found, 1), whole, rtol=0, atol=1e-5 * max(1, whole.abs().max()))


@every_kind
@given(count=st.integers(1, 500), sizes=st.lists(st.integers(0, 5), max_size=8))
@settings(max_examples=10)
def test_any_cutting_of_codes_gives_the_offline_sound(kind, count, sizes):
    tokens = tokenizer(kind).encode(samples(count, seed=count))
    whole = tokenizer(kind).decode(tokens).samples
    edges = np.minimum(np.cumsum(sizes), tokens.frames).astype(int)
    with tokenizer(kind).stream() as stream:
        parts = np.split(tokens.codes, edges, axis=1)
        sound = np.concatenate([stream.decode(part, until=tokens.num_samples) for part in parts])
    assert sound.dtype == np.float32 and len(sound) == tokens.num_samples
    assert np.abs(sound - whole).max() <= 1e-5 * max(1, np.abs(whole).max())


@every_kind
def test_sample_by_sample_and_codes_as_soon_as_their_frame_is_there(kind):
    wave = samples(3 * HOP + 1).samples
    with tokenizer(kind).stream() as stream:
        known = [stream.encode(wave[i : i + 1]).shape[1] for i in range(len(wave))]
        assert [i for i, n in enumerate(known, 1) if n] == [HOP, 2 * HOP, 3 * HOP]
        assert stream.finish().shape == (4, 1)
    assert set(known) == {0, 1}


@pytest.mark.parametrize("levels", [1, 3])
def test_a_stream_can_stop_at_some_levels_and_decode_some(levels):
    wave, model = samples(555), tokenizer("seanet-causal")
    codes = encoded("seanet-causal", wave.samples, [100, 7], levels=levels)
    tokens = model.encode(wave, levels)
    assert np.array_equal(codes, tokens.codes)
    acoustic = model.encode(wave).acoustic
    with model.stream() as stream:
        sound = stream.decode(acoustic.codes, acoustic.first_level, until=555)
    assert np.abs(sound - model.decode(acoustic).samples).max() <= 1e-5


def test_levels_of_coarser_frames_are_given_by_whole_blocks():
    config = CodecConfig(
        backbone="frame", sample_rate=RATE, dimension=16, semantic_dimension=8, codebook_size=16, n_q=3,
        quantizer=QuantizerConfig(kind="cross_scale", strides=(4, 2, 1)), **KINDS["frame-causal"],
    )  # fmt: skip
    torch.manual_seed(0)
    codec = Codec(config).eval()
    with torch.no_grad():
        codec.quantizer.initialise(codec.encoder(torch.tensor(signal(4.0).samples)[None])[0])
    model, wave = CodecTokenizer(codec, "strided"), samples(11 * HOP + 3)
    with model.stream() as stream:
        assert (stream.frames, stream.latency) == (4, 4 * HOP)
        codes = [stream.encode(wave.samples[at : at + 50]) for at in range(0, len(wave), 50)]
        assert stream.tokens([*codes, stream.finish()]) == model.encode(wave)


def test_long_codes_are_decoded_in_bounded_memory_and_without_a_seam():
    tokens = tokenizer("seanet-causal").encode(signal(6.0))
    assert tokens.frames > 1000
    with tokenizer("seanet-causal").stream() as stream:
        sound = stream.decode(tokens.codes, until=tokens.num_samples)
    assert np.abs(sound - tokenizer("seanet-causal").decode(tokens).samples).max() <= 1e-5


# what a stream tells


def test_tokens_of_a_stream_are_those_of_the_whole():
    wave = samples(1003)
    with tokenizer("frame-causal").stream() as stream:
        codes = [stream.encode(piece) for piece in pieces(wave.samples, [1, 0, 500])]
        codes.append(stream.finish())
        assert stream.heard == 1003
        assert stream.tokens(codes) == tokenizer("frame-causal").encode(wave)
        with pytest.raises(TokenError, match="do not fit"):
            stream.tokens(codes[:-1])


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("rate", [None, RATE, 3 * RATE, 11025])
def test_latency_is_when_the_first_code_comes(rate, frames):
    with tokenizer("seanet-causal").stream(rate, frames=frames) as stream:
        heard = 1
        while not stream.encode(np.zeros(1, np.float32)).shape[1]:
            heard += 1
        assert stream.latency == heard
        assert stream.latency_seconds == heard / stream.rate
    assert rate not in (None, RATE) or heard == frames * HOP


@given(count=st.integers(1, 3000), sizes=cuts, rate=st.sampled_from([5512, 16000, 22050]))
@settings(max_examples=12)
def test_other_rates_are_resampled_as_they_come(count, sizes, rate):
    audio = Audio(signal(0.6, rate, seed=count).samples[:count], rate)
    with tokenizer("seanet-causal").stream(rate) as stream:
        codes = [stream.encode(piece) for piece in pieces(audio.samples, sizes)]
        assert stream.tokens([*codes, stream.finish()]) == tokenizer("seanet-causal").encode(audio)


@given(count=st.integers(1, 3000), sizes=cuts, rates=st.permutations([8000, 16000, 11025]))
def test_resampling_piece_by_piece_is_resampling(count, sizes, rates):
    audio, stream = Audio(signal(0.5, rates[0]).samples[:count], rates[0]), RateStream(*rates[:2])
    found = np.concatenate([*(stream.push(piece) for piece in pieces(audio.samples, sizes)), stream.finish()])
    assert len(found) == resampled_length(len(audio), *rates[:2])
    assert np.array_equal(found, audio.resample(rates[1]).samples)


# refusals


@pytest.mark.parametrize(("kind", "words"), [("frame", "not causal"), ("seanet-lstm", "not causal")])
def test_models_that_look_ahead_are_refused(kind, words):
    with pytest.raises(NotSupportedError, match=words):
        tiny_tokenizer(kind).stream()


def test_a_voice_that_is_known_at_the_end_cannot_stream():
    with pytest.raises(NotSupportedError, match="voice of the whole recording"):
        tiny_tokenizer("frame-timbre").stream()


def test_layers_of_somebody_else_are_no_stream():
    with pytest.raises(TypeError, match="no stream is known for Bilinear"):
        streamed(torch.nn.Bilinear(1, 1, 1))


@pytest.mark.parametrize(
    ("options", "error"),
    [({"rate": 0}, AudioError), ({"levels": 5}, ConfigError), ({"frames": 0}, ConfigError)],
    ids=["rate", "levels", "frames"],
)
def test_options_out_of_range_are_refused(options, error):
    with pytest.raises(error):
        tokenizer("frame-causal").stream(**options)


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (np.zeros((2, 2), np.float32), "1-D"),
        (np.zeros(5, np.int16), "full scale"),
        (np.array([0, np.nan], np.float32), "sample 1 is NaN"),
        ("speech", "floating point"),
    ],
    ids=["stereo", "integers", "nan", "text"],
)
def test_chunks_that_are_no_signal_are_refused_and_the_stream_goes_on(chunk, words):
    wave = samples(100).samples
    with tokenizer("seanet-causal").stream() as stream:
        first = stream.encode(wave[:50])
        with pytest.raises(AudioError, match=words):
            stream.encode(chunk)
        codes = [first, stream.encode(wave[50:]), stream.finish()]
    assert np.array_equal(np.concatenate(codes, axis=1), encoded("seanet-causal", wave, []))


@pytest.mark.parametrize(
    ("codes", "first_level"),
    [
        (np.zeros(4, np.int64), 0),
        (np.zeros((5, 1), np.int64), 0),
        (np.zeros((4, 1), np.int64), 1),
        (np.zeros((1, 1), np.int64), -1),
        (np.zeros((4, 1)), 0),
        (np.full((4, 1), 32), 0),
        (np.full((4, 1), -1), 0),
    ],
)
def test_codes_of_something_else_are_refused(codes, first_level):
    with tokenizer("frame-causal").stream() as stream, pytest.raises(TokenError, match="tiny-frame-causal"):
        stream.decode(codes, first_level)


def test_a_finished_stream_encodes_no_more_and_still_decodes():
    with tokenizer("frame-causal").stream() as stream:
        stream.encode(samples(10).samples)
        codes = stream.finish()
        for call in (stream.finish, lambda: stream.encode(samples(1).samples)):
            with pytest.raises(AudioError, match="has been finished"):
                call()
        assert len(stream.decode(codes)) == HOP
    with pytest.raises(AudioError, match="has been left"):
        stream.decode(codes)


def test_silence_has_no_tokens():
    with tokenizer("frame-causal").stream() as stream:
        assert stream.encode(np.empty(0, np.float32)).shape == (4, 0)
        assert stream.finish().shape == (4, 0)
        with pytest.raises(TokenError):
            stream.tokens([])


def test_a_stream_does_not_change_the_model():
    codec = tiny_codec("seanet-causal")
    before = {key: value.clone() for key, value in codec.state_dict().items()}
    model = CodecTokenizer(codec, "a")
    with warnings.catch_warnings(), model.stream() as one, model.stream() as other:
        warnings.simplefilter("error")
        wave = samples(200).samples
        assert np.array_equal(one.encode(wave), other.encode(wave))
    assert all(torch.equal(value, before[key]) for key, value in codec.state_dict().items())
