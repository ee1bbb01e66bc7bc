"""Scheme E in two stages: units and codec levels on one grid, under one fingerprint."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import speechtok
from speechtok.audio import Audio
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.tokenizers.features import MelFeatures
from speechtok.tokenizers.two_stage import TwoStageTokenizer, save_two_stage
from speechtok.tokenizers.units import Clusters, UnitTokenizer, save_units
from speechtok.verify import verify
from tiny import HOP, RATE, samples, signal, tiny_codec, tiny_tokenizer


def mel_units(hop: int = HOP, rate: int = RATE) -> UnitTokenizer:
    mel = MelFeatures(rate, 4 * hop, hop, 20)
    rows = mel.rows(torch.tensor(signal(2.0, rate).samples))
    return UnitTokenizer(Clusters(mel, rows[:: len(rows) // 9][:9].clone()), "mel-units")


@pytest.fixture(scope="module")
def codec():
    return tiny_tokenizer("frame")


@pytest.fixture(scope="module")
def both(codec) -> TwoStageTokenizer:
    return TwoStageTokenizer(mel_units(), codec, "both")


def test_level_zero_is_the_units_and_the_rest_the_codec(both, codec):
    audio = samples(4001)
    tokens = both.encode(audio)
    assert tokens.codebook_sizes == (9, 32, 32, 32, 32) and tokens.semantic_levels == (0,)
    assert np.array_equal(tokens.semantic.codes, both.units.encode(audio).codes)
    assert np.array_equal(tokens.acoustic.codes, codec.encode(audio).codes)
    assert len(np.unique(tokens.codes[0])) > 3


@settings(max_examples=10)
@given(count=st.integers(1, 2000), levels=st.integers(1, 5))
def test_the_length_law_holds_for_any_levels(both, count, levels):
    tokens = both.encode(samples(count), levels)
    assert tokens.codes.shape == (levels, -(-count // HOP))
    assert np.array_equal(tokens.codes, both.encode(samples(count)).codes[:levels])


def test_decode_uses_the_acoustic_levels_alone(both, codec):
    audio = samples(3999)
    tokens, expected = both.encode(audio), codec.decode(codec.encode(audio)).samples
    for part in (tokens, tokens.acoustic):
        assert np.array_equal(both.decode(part).samples, expected)
    two = codec.decode(codec.encode(audio, 2)).samples
    assert np.array_equal(both.decode(tokens.take(3)).samples, two)
    with pytest.raises(NotSupportedError, match="semantic levels alone have no waveform"):
        both.decode(tokens.semantic)


@pytest.mark.parametrize("factor", [pytest.param(2, id="units-slower"), pytest.param(0.5, id="units-faster")])
def test_units_of_another_rate_are_placed_where_their_time_is(codec, factor):
    units = mel_units(int(HOP * factor))
    with pytest.raises(ConfigError, match=r"frames/s.*nearest"):
        TwoStageTokenizer(units, codec, "both")
    both = TwoStageTokenizer(units, codec, "both", alignment="nearest")
    audio = samples(3990)
    alone, placed = units.encode(audio).codes[0], both.encode(audio).codes[0]
    middles = (np.arange(len(placed)) * HOP + HOP // 2) // units.hop
    assert np.array_equal(placed, alone[np.minimum(middles, len(alone) - 1)])


def test_units_may_hear_another_sample_rate(codec):
    both = TwoStageTokenizer(mel_units(2 * HOP, 2 * RATE), codec, "both")
    audio = samples(4001)
    expected = both.units.encode(Audio(audio.samples, RATE)).codes[:, :101]
    assert np.array_equal(both.encode(audio).semantic.codes, expected)


def test_verify_finds_nothing_broken(both):
    checks = {check.name: check for check in verify(both, [samples(RATE), samples(RATE // 2, 1)])}
    assert {name: check.measured for name, check in checks.items() if check.passed is False} == {}
    assert all(
        checks[name].passed
        for name in ("length law", "round-trip length", "same codes twice", "batch == single", "token file")
    )


def test_the_fingerprint_covers_both_and_their_alignment(both, codec):
    others = [
        TwoStageTokenizer(both.units, tiny_tokenizer("frame", seed=1), "x"),
        TwoStageTokenizer(
            UnitTokenizer(Clusters(both.units.source.features, both.units.source.centres + 1), "u"), codec, "x"
        ),
        TwoStageTokenizer(both.units, codec, "x", alignment="nearest"),
        TwoStageTokenizer(both.units, codec, "x", acoustic_levels=2),
    ]
    assert len({one.fingerprint for one in [both, *others]}) == 5
    with pytest.raises(TokenError, match="made by both"):
        others[0].decode(both.encode(samples(100)))
    tokens = both.encode(samples(100))
    with pytest.raises(TokenError, match="contradict"):
        both.decode(dataclasses.replace(tokens, codebook_sizes=(10, 32, 32, 32, 32)))


def test_fewer_acoustic_levels(both, codec):
    small = TwoStageTokenizer(both.units, codec, "small", acoustic_levels=2)
    assert small.levels == 3 and small.encode(samples(100)).codes.shape == (3, 3)
    with pytest.raises(ConfigError, match="has 4 levels"):
        TwoStageTokenizer(both.units, codec, "x", acoustic_levels=9)


def test_a_codec_is_no_source_of_units(codec):
    with pytest.raises(ConfigError, match="scheme B"):
        TwoStageTokenizer(codec, codec, "x")


def test_a_folder_holds_or_names_both(both, tmp_path):
    folder = tmp_path / "e"
    save_units(both.units, folder / "units")
    save_codec(tiny_codec("frame"), folder / "codec", {"scheme": "A"})
    save_two_stage(both, folder, "units", "codec", {"licence_weights": "CC0"})
    loaded = speechtok.load(folder)
    assert (loaded.scheme, loaded.licence, loaded.fingerprint) == ("E", "CC0", both.fingerprint)
    assert np.array_equal(loaded.encode(samples(777)).codes, both.encode(samples(777)).codes)


def test_a_folder_that_names_what_is_not_there_is_refused(both, tmp_path):
    save_two_stage(both, tmp_path, "nowhere", "nothing")
    with pytest.raises(CheckpointError, match="nowhere"):
        speechtok.load(tmp_path)


def test_the_command_writes_and_reads_two_stage_tokens(both, cli, clip, tmp_path):
    path = tmp_path / "a.tokens.safetensors"
    assert cli("encode", clip, "-o", path, load=lambda *_, **__: both)[0] == 0
    assert cli("decode", path, "-o", tmp_path / "a.wav", load=lambda *_, **__: both)[0] == 0
    code, _, err = cli("decode", path, "-o", tmp_path / "b.wav", "--semantic", load=lambda *_, **__: both)
    assert code == 2 and "alone have no waveform" in err[0]
