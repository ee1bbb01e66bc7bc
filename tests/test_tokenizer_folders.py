"""Model folders that somebody made by hand or in bad faith: one line, never a traceback or another model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import huggingface_hub
import numpy as np
import pytest
import torch

import speechtok
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError
from speechtok.guidance.frames import FrameLaw
from speechtok.nn.frame import FrameConfig
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokenizers.features import CodecFeatures, MelFeatures, TeacherFeatures, carried
from speechtok.tokenizers.fingerprint import settings_facts
from speechtok.tokenizers.registry import located
from speechtok.tokenizers.soft import SoftTokenizer, save_soft
from speechtok.tokenizers.two_stage import TwoStageTokenizer, save_two_stage
from speechtok.tokenizers.units import Clusters, UnitTokenizer, save_units
from speechtok.verify import long_decode
from tiny import HOP, RATE, samples, signal, tiny_codec, tiny_tokenizer


@pytest.fixture
def soft(tmp_path):
    """A folder of mel features, to be damaged."""
    save_soft(SoftTokenizer(MelFeatures(RATE, 4 * HOP, HOP, 20), "m"), tmp_path / "soft")
    return tmp_path / "soft"


def change(folder, **entries):
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | entries))
    return folder


CODEC = {"kind": "codec"}
BAD = {
    "kind-list": {"kind": []},
    "features-text": {"soft": {"features": "mel"}},
    "features-itself": {
        "soft": {"features": CODEC | {"model": "."}, "pool": 1, "dtype": "float16", "projected": False}
    },
    "model-number": {"soft": {"features": CODEC | {"model": 5}}},
    "stages-itself": {"kind": "two_stage", "two_stage": {"units": ".", "codec": "."}},
    "shape-text": {"shape": dict.fromkeys(["scheme", "sample_rate", "hop", "codebook_sizes", "semantic_levels"], "x")},
    "licence-number": {"card": {"licence_weights": 5}},
}


@pytest.mark.parametrize("entries", BAD.values(), ids=BAD)
def test_a_malformed_configuration_is_one_line(soft, entries):
    with pytest.raises(CheckpointError) as caught:
        speechtok.load(change(soft, **entries))
    assert "\n" not in str(caught.value) and str(soft) in str(caught.value)


def test_a_missing_folder_is_not_looked_for_where_the_program_runs(tmp_path, monkeypatch):
    (tmp_path / "here" / "org" / "codec").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "model").mkdir()
    for name in ("org", "org/codec", "nowhere"):
        with pytest.raises(CheckpointError, match="no folder in there"):
            located(tmp_path / "model", name)
    assert located(tmp_path / "model", "other/codec") == "other/codec"
    assert located(tmp_path / "model", "speechtok-base") == "speechtok-base"
    assert located(tmp_path, "model") == str(tmp_path / "model")


def test_the_hub_is_asked_for_the_folders_that_a_model_names(tmp_path, monkeypatch):
    mel = MelFeatures(RATE, 4 * HOP, HOP, 20)
    units = UnitTokenizer(Clusters(mel, torch.zeros(3, 20)), "u")
    both = TwoStageTokenizer(units, tiny_tokenizer("frame"), "both")
    save_two_stage(both, tmp_path, "parts/units", "parts/codec")
    asked = []

    def fake(repository, allow_patterns):
        asked.extend(allow_patterns)
        if "parts/units/*.json" in allow_patterns:
            save_units(units, tmp_path / "parts/units")
        if "parts/codec/*.json" in allow_patterns:
            save_codec(tiny_codec("frame"), tmp_path / "parts/codec")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    assert speechtok.load("some/both").fingerprint == both.fingerprint
    assert "parts/codec/model.safetensors" in asked


def test_a_codec_without_a_card_is_a_plain_codec(tmp_path):
    save_codec(tiny_codec("frame"), tmp_path)
    loaded = speechtok.load(tmp_path)
    assert (loaded.scheme, loaded.semantic_levels) == ("A", ())


@pytest.mark.parametrize("levels", [[0, 0], [1, 0]], ids=str)
def test_semantic_levels_rise(tmp_path, levels):
    save_codec(tiny_codec("frame"), tmp_path, {"semantic_levels": levels})
    with pytest.raises(CheckpointError, match="semantic_levels of its card must be a rising list"):
        speechtok.load(tmp_path)


def test_convert_refuses_what_is_no_codec_of_ours(cli, tmp_path):
    for name in ("a.pt", "config.json"):
        (tmp_path / name).write_text("{}")
    other = SoftTokenizer(MelFeatures(), "mel")
    words = ("convert", tmp_path / "a.pt", tmp_path / "config.json", "-o", tmp_path / "new")
    code, _, err = cli(*words, load=lambda *_, **__: other)
    assert code == 2 and "no SpeechTokenizer model" in err[0] and not (tmp_path / "new").exists()


def test_convert_passes_the_card_on(cli, tmp_path):
    for name in ("a.pt", "config.json"):
        (tmp_path / name).write_text("{}")
    codec = CodecTokenizer(tiny_codec("frame"), "t", scheme="E", semantic_levels=(0, 1), note="mind the gap")

    def load(place, **_):
        return codec if isinstance(place, tuple) else speechtok.load(place)

    assert cli("convert", tmp_path / "a.pt", tmp_path / "config.json", "-o", tmp_path / "new", load=load)[0] == 0
    new = speechtok.load(tmp_path / "new")
    assert (new.semantic_levels, new.note) == ((0, 1), "mind the gap")


# fingerprints and sound


def test_an_option_that_is_added_changes_no_fingerprint():
    @dataclass
    class Later(FrameConfig):
        novelty: int = 3

    before = settings_facts(FrameConfig(), "frame")
    assert settings_facts(Later(), "frame") == before
    assert settings_facts(Later(novelty=4), "frame") == before | {"novelty": 4}


@pytest.mark.parametrize("kind", ["frame", "seanet"])
def test_fingerprints_hold_every_setting_of_the_first_version(kind):
    tokenizer = tiny_tokenizer(kind)
    config = tokenizer.codec.config.to_dict()
    del config["quantizer"]
    assert tokenizer._config_facts() == config


class Plain:
    """A teacher that is no module."""

    law, dimension = FrameLaw(RATE, HOP, HOP), 2

    def __call__(self, wave, lengths=None):
        return wave.new_zeros(1, self.law.frames(wave.shape[1]), 2), None


def test_a_teacher_without_weights_says_what_it_is(tmp_path):
    with pytest.raises(ConfigError, match="digest"):
        TeacherFeatures(Plain())
    one, two = (UnitTokenizer(Clusters(TeacherFeatures(Plain(), digest=d), torch.zeros(1, 2)), d) for d in "ab")
    assert one.fingerprint != two.fingerprint
    with pytest.raises(ConfigError, match="cannot be loaded again"):
        save_units(one, tmp_path)


def test_a_teacher_without_its_weights_is_not_copied(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        carried(str(tmp_path / "teacher"), tmp_path / "new", lambda _: None)


VOCODERS = {
    "too-short": (lambda codes: np.zeros(10, np.float32), "10 samples where"),
    "whole-numbers": (lambda codes: np.zeros(codes.shape[1] * HOP, np.int16), "int16"),
    "two-axes": (lambda codes: np.zeros((1, codes.shape[1] * HOP), np.float32), "float32"),
}


@pytest.mark.parametrize(("vocoder", "message"), VOCODERS.values(), ids=VOCODERS)
def test_a_vocoder_that_gives_something_else_is_refused(vocoder, message):
    units = UnitTokenizer(Clusters(MelFeatures(RATE, 4 * HOP, HOP, 20), torch.zeros(3, 20)), "u", vocoder=vocoder)
    with pytest.raises(ConfigError, match=message):
        units.decode(units.encode(samples(1000)))


def test_the_array_of_a_vocoder_stays_its_own():
    own = np.zeros(1000, np.float32)
    mel = MelFeatures(RATE, 4 * HOP, HOP, 20)
    units = UnitTokenizer(Clusters(mel, torch.zeros(3, 20)), "u", vocoder=lambda codes: own)
    units.decode(units.encode(samples(1000)))
    own[0] = 1  # raises where it was frozen


def test_long_decode_of_latents_really_decodes_in_windows(monkeypatch):
    codec = tiny_tokenizer("seanet-lstm")
    tokenizer, seen = SoftTokenizer(CodecFeatures(codec), "latents"), []
    decode = codec.runner.decoder.forward

    def watched(rows, *rest):
        seen.append(rows.shape[1])
        return decode(rows, *rest)

    monkeypatch.setattr(codec.runner.decoder, "forward", watched)
    check = long_decode(tokenizer, [signal(2.0)])
    assert len(seen) > 2 and max(seen[1:]) < seen[0]
    assert check.passed is None and tokenizer.exact_windows[1] is False


def test_latents_come_from_a_codec_of_speechtok():
    class Foreign(CodecTokenizer):
        def __init__(self):
            self.name, self.codec = "foreign", torch.nn.Identity()

    with pytest.raises(ConfigError, match="no codec of speechtok"):
        CodecFeatures(Foreign())


def test_two_stages_need_a_codec():
    mel = MelFeatures(RATE, 4 * HOP, HOP, 20)
    units = UnitTokenizer(Clusters(mel, torch.zeros(3, 20)), "u")
    with pytest.raises(ConfigError, match="no codes for the acoustic levels"):
        TwoStageTokenizer(units, SoftTokenizer(mel, "soft"), "both")
    with pytest.raises(NotSupportedError):
        units.decode(units.encode(samples(100)))
