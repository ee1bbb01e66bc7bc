"""CTX-vec2wav in miniature: shapes, voices, prosody, the folder, and units that speak."""

import json

import numpy as np
import pytest
import torch

import speechtok
from conftest import synthetic_speech
from speechtok.audio import write
from speechtok.errors import AudioError, CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.nn.ctx_vec2wav import CtxVec2Wav, VocoderConfig
from speechtok.tokenizers.conversion import convert_voice
from speechtok.tokenizers.eightbit import grow, shrink
from speechtok.tokenizers.units import Clusters, UnitTokenizer, save_units
from speechtok.tokenizers.vocoder import load_vocoder, save_vocoder
from tiny_vocoder import BACKENDS, speaking_units, tiny_config, tiny_units, tiny_vocoder


@pytest.fixture(scope="module")
def units():
    return tiny_units()


@pytest.fixture(scope="module")
def speaking():
    return speaking_units()


# -- network --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_prosody", [False, True], ids=["alpha", "prosody"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_frame_becomes_a_hop_and_every_part_learns(backend, with_prosody):
    torch.manual_seed(0)
    model = CtxVec2Wav(tiny_config(backend, prosody=with_prosody))
    codes, prompt = torch.randint(0, 12, (2, 1, 7)), torch.randn(2, 9, 20)
    foretold = model.foretell(codes, prompt)
    wave = model.backend(foretold.states)
    assert wave.shape == (2, 7 * 320) and foretold.mel.shape == (2, 7 * model.config.repeat, 80)
    losses = wave.square().mean() + foretold.mel.square().mean()
    if with_prosody:
        losses = losses + foretold.prosody.square().mean()
    losses.backward()
    still = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert still == []
    assert model.prompt[0].conv.weight.grad.abs().sum() > 0 and model.codes[0].weight.grad.abs().sum() > 0


def test_several_levels_are_added():
    model = CtxVec2Wav(tiny_config("frame", codebook_sizes=(12, 5))).eval()
    prompt = torch.randn(1, 4, 20)
    one = model(torch.tensor([[[3, 4], [0, 1]]]), prompt)
    assert not torch.equal(one, model(torch.tensor([[[3, 4], [2, 1]]]), prompt))


def test_given_prosody_is_followed():
    torch.manual_seed(0)
    model = CtxVec2Wav(tiny_config("frame", prosody=True)).eval()
    codes, prompt = torch.randint(0, 12, (1, 1, 6)), torch.randn(1, 4, 20)
    own = model.foretell(codes, prompt)
    again, other = (model.foretell(codes, prompt, p) for p in (own.prosody, own.prosody + 1))
    assert torch.allclose(own.states, again.states) and not torch.allclose(own.states, other.states)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_config_survives_json(backend):
    shape = tiny_config(backend, prosody=True)
    assert VocoderConfig.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape


def test_frames_that_do_not_make_the_hop_are_refused():
    with pytest.raises(ConfigError, match=r"hop of 320.*repeat or rates"):
        VocoderConfig(repeat=1)


# -- folder, voices, commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_saved_vocoder_sounds_the_same(units, backend, tmp_path):
    vocoder = tiny_vocoder(units, backend, prosody=True)
    save_vocoder(vocoder, tmp_path / "v")
    codes = np.random.default_rng(0).integers(0, 12, (1, 20))
    loaded = load_vocoder(tmp_path / "v")
    assert np.allclose(loaded(codes), vocoder(codes), atol=1e-5) and loaded.units == units.fingerprint
    save_vocoder(vocoder, tmp_path / "half", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "v")]
    assert sizes[0] < 0.7 * sizes[1]
    assert np.abs(load_vocoder(tmp_path / "half")(codes) - vocoder(codes)).mean() < 0.02


def test_eight_bits_are_close_and_small(units, tmp_path):
    vocoder = tiny_vocoder(units, "frame", prosody=True, code_dimension=512)
    for name, dtype in (("fp16", torch.float16), ("int8", torch.int8)):
        save_vocoder(vocoder, tmp_path / name, dtype=dtype)
    sizes = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("fp16", "int8")}
    assert sizes["int8"] < 0.75 * sizes["fp16"]
    rows = torch.logspace(-3, 1, 64)[:, None]
    state = {"a": torch.randn(64, 80) * rows, "b": torch.randn(7), "c": torch.zeros(64, 64)}
    again = grow(shrink(state))
    assert again.keys() == state.keys() and again["c"].abs().max() == 0
    step = state["a"].abs().amax(1, keepdim=True) / 127
    assert ((again["a"] - state["a"]).abs() <= 0.51 * step).all()
    codes = np.random.default_rng(0).integers(0, 12, (1, 20))
    exact, found = vocoder(codes), load_vocoder(tmp_path / "int8")(codes)
    assert np.abs(found - exact).mean() < 0.1 * np.abs(exact).mean()


def test_speech_in_pieces_is_as_long_as_in_one(units):
    vocoder = tiny_vocoder(units)
    vocoder.piece_seconds, vocoder.overlap_seconds = 0.5, 0.1
    codes = np.random.default_rng(0).integers(0, 12, (1, 131))
    with pytest.warns(UserWarning):
        assert vocoder(codes).shape == (131 * 320,)


def test_another_voice_sounds_otherwise_and_leaves_the_first_alone(speaking):
    audio = synthetic_speech(0.7)
    tokens = speaking.encode(audio)
    before = speaking.decode(tokens).samples
    other = speaking.with_voice(synthetic_speech(1.0, rate=22050, seed=9))
    assert not np.allclose(other.decode(tokens).samples, before)
    assert np.array_equal(speaking.decode(tokens).samples, before)
    assert other.fingerprint == speaking.fingerprint


def test_units_that_speak_survive_their_folder_and_keep_their_fingerprint(speaking, units, tmp_path):
    save_units(speaking, tmp_path / "speaking")
    loaded = speechtok.load(tmp_path / "speaking")
    audio = synthetic_speech(0.4)
    tokens = loaded.encode(audio)
    assert loaded.fingerprint == units.fingerprint == tokens.fingerprint
    assert np.allclose(loaded.decode(tokens).samples, speaking.decode(tokens).samples, atol=1e-5)
    assert loaded.voices and loaded.exact_windows[1] is False


def test_a_vocoder_of_other_units_is_refused(speaking):
    others = Clusters(speaking.source.features, torch.zeros(3, 20))
    with pytest.raises(ConfigError, match="was trained on units"):
        UnitTokenizer(others, "others", vocoder=speaking.vocoder)


DAMAGES = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "foreign": lambda folder: (folder / "config.json").write_text('{"format": "other"}'),
    "too new": lambda folder: (folder / "config.json").write_text('{"format": "speechtok.vocoder", "version": 9}'),
    "cut weights": lambda folder: (folder / "model.safetensors").write_bytes(b"\x08"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "other shape": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"code_dimension": 20', '"code_dimension": 21')
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_folders_are_refused_in_one_line(speaking, tmp_path, damage):
    folder = tmp_path / "v"
    save_vocoder(speaking.vocoder, folder)
    damage(folder)
    with pytest.raises(CheckpointError) as caught:
        load_vocoder(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_voices_are_converted_by_speaking_in_another(speaking):
    source, reference = synthetic_speech(0.5), synthetic_speech(0.8, seed=3)
    converted = convert_voice(speaking, source, reference)
    wanted = speaking.with_voice(reference).decode(speaking.encode(source))
    assert np.array_equal(converted.samples, wanted.samples)
    assert np.array_equal(convert_voice(speaking, speaking.encode(source), reference).samples, wanted.samples)


def test_what_cannot_be_converted_is_refused(speaking, units):
    source, reference = synthetic_speech(0.5), synthetic_speech(0.8, seed=3)
    with pytest.raises(ConfigError, match="mixes no levels"):
        convert_voice(speaking, source, reference, slice(1, 2))
    with pytest.raises(TokenError, match="hold no voice"):
        convert_voice(speaking, source, speaking.encode(reference))
    with pytest.raises(AudioError, match="tells no voice"):
        convert_voice(speaking, source, synthetic_speech(0.05))
    with pytest.raises(NotSupportedError, match="cannot be given a voice"):
        units.with_voice(reference)


def test_the_commands_speak_in_a_voice(cli, speaking, tmp_path):
    source, reference = tmp_path / "a.wav", tmp_path / "b.wav"
    write(source, synthetic_speech(0.5))
    write(reference, synthetic_speech(0.8, seed=3))
    assert cli("encode", source, "-o", tmp_path / "t.tokens.safetensors", load=lambda *_, **__: speaking)[0] == 0
    for name, extra in (("own", ()), ("voiced", ("--voice", reference))):
        code, _, _ = cli(
            "decode", tmp_path / "t.tokens.safetensors", "-o", tmp_path / f"{name}.wav", *extra,
            load=lambda *_, **__: speaking,
        )  # fmt: skip
        assert code == 0
    own, voiced = (speechtok.read(tmp_path / f"{name}.wav").samples for name in ("own", "voiced"))
    assert len(own) == len(voiced) == 8000 and not np.array_equal(own, voiced)
    code, out, _ = cli(
        "vc", source, "--voice", reference, "-o", tmp_path / "c.wav", "--json", load=lambda *_, **__: speaking
    )
    assert code == 0 and json.loads(out)["voice_levels"] is None
    assert np.array_equal(speechtok.read(tmp_path / "c.wav").samples, voiced)
    code, _, err = cli("decode", tmp_path / "t.tokens.safetensors", "-o", tmp_path / "d.wav", "--voice", source)
    assert code == 2 and len(err) == 1 and not (tmp_path / "d.wav").exists()
