"""Scheme C: soft tokens as a value and its file, the adapters, and the tokenizers that work offline."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import speechtok
from speechtok.anytokens import load_tokens
from speechtok.audio import Audio, read
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError, TokenFileError
from speechtok.soft_tokens import SoftTokens
from speechtok.tokenizers.features import CodecFeatures, MelFeatures
from speechtok.tokenizers.soft import Projection, SoftTokenizer, save_soft
from speechtok.verify import verify
from tiny import HOP, RATE, samples, tiny_tokenizer


def make(frames=5, dimension=4, dtype=np.float16, **changes) -> SoftTokens:
    features = np.random.default_rng(0).standard_normal((frames, dimension)).astype(dtype)
    fields = {"features": features, "sample_rate": 16000, "hop": 320, "num_samples": 320 * frames - 7}
    return SoftTokens(**(fields | {"semantic_dimensions": 0, "tokenizer": "t", "fingerprint": "f"} | changes))


@pytest.fixture(scope="module")
def codec():
    return tiny_tokenizer("frame")


@pytest.fixture(scope="module")
def mel() -> SoftTokenizer:
    return SoftTokenizer(MelFeatures(RATE, 160, HOP, 20), "tiny-mel")


# the value


@pytest.mark.parametrize("dtype", [np.float16, np.float32], ids=["float16", "float32"])
def test_a_saved_file_loads_as_what_was_saved(tmp_path, dtype):
    tokens = make(dtype=dtype, semantic_dimensions=2, first_dimension=1)
    tokens.save(tmp_path / "s")
    for loaded in (SoftTokens.load(tmp_path / "s"), load_tokens(tmp_path / "s")):
        assert loaded == tokens and hash(loaded) == hash(tokens)
        assert loaded.features.dtype == dtype and np.array_equal(loaded.features, tokens.features)
        assert all(
            getattr(loaded, field.name) == getattr(tokens, field.name)
            for field in dataclasses.fields(tokens)
            if field.name != "features"
        )


def test_an_altered_byte_of_the_payload_is_refused(tmp_path):
    make().save(tmp_path / "s")
    data = bytearray((tmp_path / "s").read_bytes())
    data[-1] ^= 1
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(TokenFileError, match="damaged or altered"):
        SoftTokens.load(tmp_path / "s")


def test_soft_and_discrete_files_are_not_taken_for_one_another(tmp_path, codec):
    make().save(tmp_path / "s")
    codec.encode(samples(100)).save(tmp_path / "d")
    with pytest.raises(TokenFileError, match=r"speechtok\.soft.*speechtok\.tokens is wanted"):
        speechtok.Tokens.load(tmp_path / "s")
    with pytest.raises(TokenFileError, match="not a token file"):
        SoftTokens.load(tmp_path / "d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"features": np.zeros((5, 4))}, "float16 or float32", id="dtype"),
        pytest.param({"features": np.zeros((4, 4), np.float32)}, "do not fit 5 frames", id="frames"),
        pytest.param({"features": np.full((5, 4), np.nan, np.float16)}, "NaN", id="nan"),
        pytest.param({"features": np.zeros((5, 0), np.float16)}, "float16 or float32", id="no-dimension"),
        pytest.param({"hop": 0}, "hop must be", id="hop"),
        pytest.param({"tokenizer": 3}, "tokenizer must be text", id="tokenizer"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(TokenError, match=message):
        make(**changes)


def test_views_are_slices_of_dimensions():
    tokens = make(semantic_dimensions=3)
    assert np.array_equal(tokens.semantic.features, tokens.features[:, :3])
    assert np.array_equal(tokens.acoustic.features, tokens.features[:, 3:])
    assert tokens.acoustic.first_dimension == 3 and tokens.take(1).dimension == 1
    assert tokens.acoustic.acoustic == tokens.acoustic
    with pytest.raises(TokenError, match="no semantic"):
        tokens.acoustic.semantic  # noqa: B018
    with pytest.raises(TokenError, match="cannot take 5"):
        tokens.take(5)
    with pytest.raises(ValueError):
        tokens.features[0, 0] = 1


def test_the_bitrate_counts_the_stored_bits():
    assert make(dimension=4).bitrate == 50 * 4 * 16
    assert make(dimension=4, dtype=np.float32).bitrate == 50 * 4 * 32


# adapters


def test_pca_finds_the_directions_that_vary_most():
    generator = np.random.default_rng(0)
    hidden = generator.standard_normal((4000, 2)) * [5, 2]
    basis, _ = np.linalg.qr(generator.standard_normal((6, 6)))
    rows = hidden @ basis[:2] + 0.01 * generator.standard_normal((4000, 6)) + 3
    pca = Projection.pca([rows[:1500], rows[1500:]], 2)
    assert np.allclose(pca.weight.T @ pca.weight, np.eye(2), atol=1e-5)
    projected = pca(rows.astype(np.float32))
    assert np.allclose(projected.std(0), [5, 2], rtol=0.05) and np.allclose(projected.mean(0), 0, atol=1e-3)
    assert np.abs(pca.inverse(projected) - rows).max() < 0.1


@pytest.mark.parametrize("dimensions", [0, 7])
def test_pca_of_impossible_size_is_refused(dimensions):
    with pytest.raises(ConfigError, match="components"):
        Projection.pca([np.ones((3, 6))], dimensions)


@pytest.mark.parametrize("pool", [1, 2, 3])
def test_pooling_is_the_mean_of_neighbours(mel, pool):
    pooled = SoftTokenizer(mel.source, "pooled", pool=pool, dtype="float32")
    plain = SoftTokenizer(mel.source, "plain", dtype="float32").encode(samples(7 * HOP)).features
    tokens = pooled.encode(samples(7 * HOP))
    assert tokens.hop == HOP * pool and tokens.frames == -(-7 // pool)
    means = [plain[start : start + pool].mean(0) for start in range(0, 7, pool)]
    assert np.allclose(tokens.features, means, atol=1e-5)


# tokenizers


@settings(max_examples=10)
@given(count=st.integers(1, 2000), pool=st.integers(1, 4))
def test_the_length_law_holds_for_every_length(mel, count, pool):
    tokens = SoftTokenizer(mel.source, "m", pool=pool).encode(samples(count))
    assert tokens.frames == -(-count // (HOP * pool))


@pytest.mark.parametrize("kind", ["frame", "frame-own"])
def test_soft_tokens_of_a_codec_decode_to_nearly_its_best(kind):
    codec = tiny_tokenizer(kind)
    soft = SoftTokenizer(CodecFeatures(codec), "latents", dtype="float32")
    audio = samples(4001)
    tokens = soft.encode(audio)
    with torch.no_grad():
        expected = codec.codec.encoder(torch.tensor(audio.samples)[None])[0, :, codec.codec.config.own_space :]
        sound = codec.codec.decoder(expected[None])[0]
    assert np.allclose(tokens.features, expected, atol=1e-5)
    decoded = soft.decode(tokens)
    assert (len(decoded), decoded.rate) == (4001, RATE)
    assert np.allclose(decoded.samples, sound[:4001], atol=1e-4)


def test_a_full_projection_is_undone_and_missing_dimensions_are_average(codec):
    plain = SoftTokenizer(CodecFeatures(codec), "latents", dtype="float32")
    audio = samples(4000)
    rows = plain.encode(audio).features
    turned = SoftTokenizer(plain.source, "pca", projection=Projection.pca([rows], rows.shape[1]), dtype="float32")
    tokens = turned.encode(audio)
    assert np.allclose(turned.decode(tokens).samples, plain.decode(plain.encode(audio)).samples, atol=1e-3)
    assert len(turned.decode(tokens.take(2))) == 4000


@pytest.mark.parametrize("source", ["mel", "latents"])
def test_verify_finds_nothing_broken(codec, mel, source):
    tokenizer = mel if source == "mel" else SoftTokenizer(CodecFeatures(codec), "latents")
    checks = {check.name: check for check in verify(tokenizer, [samples(RATE), samples(RATE // 2, 1)])}
    assert {name: check.measured for name, check in checks.items() if check.passed is False} == {}
    assert all(checks[name].passed for name in ("length law", "same codes twice", "batch == single", "token file"))
    if source == "mel":
        assert "does not apply: log-mel features have no waveform" in checks["round trip length"].promise
    else:
        assert checks["round-trip length"].passed


def test_what_soft_tokens_cannot_do_is_one_line(mel):
    tokens = mel.encode(samples(100))
    with pytest.raises(NotSupportedError, match="no waveform"):
        mel.decode(tokens)
    with pytest.raises(ConfigError, match="no levels"):
        mel.encode(samples(100), levels=1)
    with pytest.raises(TokenError, match="decodes speechtok SoftTokens, not Tokens"):
        mel.decode(tiny_tokenizer("frame").encode(samples(100)))
    with pytest.raises(TokenError, match="not by tiny-mel"):
        mel.decode(dataclasses.replace(tokens, fingerprint="x"))
    with pytest.raises(TokenError, match="contradict"):
        mel.decode(make(fingerprint=mel.fingerprint))


@pytest.mark.parametrize("projected", [False, True], ids=["plain", "projected"])
def test_a_folder_gives_the_same_features(mel, tmp_path, projected):
    rows = mel.encode(samples(4000)).features.astype(np.float32)
    adapter = Projection.pca([rows], 3) if projected else None
    tokenizer = SoftTokenizer(mel.source, "m", projection=adapter, pool=2, licence="CC0")
    save_soft(tokenizer, tmp_path / "soft")
    loaded = speechtok.load(tmp_path / "soft")
    assert (loaded.fingerprint, loaded.scheme, loaded.licence) == (tokenizer.fingerprint, "C", "CC0")
    assert loaded.encode(samples(999)).features.tobytes() == tokenizer.encode(samples(999)).features.tobytes()


def test_a_folder_without_its_projection_is_refused(mel, tmp_path):
    adapter = Projection(torch.zeros(20), torch.ones(20, 2))
    save_soft(SoftTokenizer(mel.source, "m", projection=adapter), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        speechtok.load(tmp_path)


@pytest.mark.parametrize("name", ["logmel-soft", "speechtok-base-soft"])
def test_the_bundled_ones_encode_a_clip_from_the_command(demo_clips, cli, tmp_path, name):
    path = tmp_path / "a.tokens.safetensors"
    code, out, err = cli("encode", demo_clips[0], "-o", path, "--model", name, load=speechtok.load)
    assert (code, err) == (0, []) and "float16" in out
    audio = read(demo_clips[0])
    tokens = load_tokens(path)
    assert tokens.frames == -(-len(audio.resample(16000)) // 320) and tokens.tokenizer == name
    assert '"kind": "soft"' in cli("info", path, "--json")[1]
    if name == "speechtok-base-soft":
        code, _, err = cli("decode", path, "-o", tmp_path / "a.wav", "--model", name, load=speechtok.load)
        decoded = read(tmp_path / "a.wav")
        assert (code, err, len(decoded)) == (0, [], tokens.num_samples)
        # nearer to the original than what its codes of one level say, for nothing was rounded to codes
        codec = speechtok.load()
        coarse = codec.decode(codec.encode(audio, levels=1))
        bands = [MelFeatures().rows(torch.tensor(one.samples)) for one in (audio, decoded, coarse)]
        assert (bands[1] - bands[0]).abs().mean() < 0.8 * (bands[2] - bands[0]).abs().mean()


def test_audio_is_resampled_to_the_features_rate(mel):
    assert mel.encode(Audio(np.zeros(16000, np.float32), 16000)).num_samples == RATE
