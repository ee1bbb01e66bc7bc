"""Scheme B: units keep the length law, are the nearest centres, and survive a folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import speechtok
from speechtok.audio import Audio, read
from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.guidance.clusters import UnitsConfig, save_centres
from speechtok.guidance.frames import FrameLaw
from speechtok.guidance.semantic import SemanticTeacher
from speechtok.tokenizers.features import MelFeatures, TeacherFeatures, on_grid
from speechtok.tokenizers.units import Clusters, InternalQuantizer, UnitTokenizer, save_units, trained_units
from speechtok.verify import verify
from tiny import signal

transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher() -> SemanticTeacher:
    torch.manual_seed(0)
    return SemanticTeacher(transformers.HubertModel(transformers.HubertConfig(**SMALL)), layer=1, normalise=True)


@pytest.fixture(scope="module")
def units(teacher) -> UnitTokenizer:
    features = TeacherFeatures(teacher)
    rows = features.rows(torch.tensor(signal(3.0, 16000).samples))
    return UnitTokenizer(Clusters(features, rows[:: len(rows) // 12][:12].clone()), "tiny-units", licence="none")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    sizes = {"num_codevectors_per_group": 20, "num_codevector_groups": 2, "codevector_dim": 8, "proj_codevector_dim": 8}
    return transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(**SMALL, **sizes)).eval()


def wave(samples: int, seed: int = 0) -> Audio:
    return Audio(signal(samples / 16000 + 0.01, 16000, seed).samples[:samples], 16000)


@settings(max_examples=10)
@given(samples=st.integers(1, 2000))
def test_frames_follow_the_length_law(units, samples):
    tokens = units.encode(wave(samples))
    assert tokens.codes.shape == (1, -(-samples // 320))
    assert (tokens.semantic_levels, tokens.codebook_sizes) == ((0,), (12,))


@pytest.mark.parametrize("hop", [pytest.param(160, id="repeated"), pytest.param(640, id="thinned")])
def test_another_grid_keeps_the_law(teacher, units, hop):
    other = UnitTokenizer(Clusters(TeacherFeatures(teacher, hop), units.source.centres), "other")
    audio = wave(16001)
    same, codes = units.encode(audio).codes[0], other.encode(audio).codes[0]
    assert len(codes) == -(-16001 // hop) and other.fingerprint != units.fingerprint
    middles = (np.arange(len(codes)) * hop + hop // 2) // 320
    assert np.array_equal(codes, same[np.minimum(middles, len(same) - 1)])


def test_a_unit_is_the_nearest_centre(teacher, units):
    audio = wave(8000)
    features, _ = teacher(torch.tensor(audio.samples)[None])
    nearest = torch.cdist(features[0], units.source.centres).argmin(1).numpy()
    codes = units.encode(audio).codes[0]
    assert len(np.unique(codes)) > 3
    assert np.array_equal(codes[: len(nearest)], nearest)
    assert (codes[len(nearest) :] == nearest[-1]).all()  # the teacher ends early; its last frame is repeated


def test_rows_past_the_teachers_end_repeat_its_last():
    rows = torch.arange(4)[:, None]
    assert on_grid(rows, FrameLaw(16000, 320, 400), 320, 6 * 320).flatten().tolist() == [0, 1, 2, 3, 3, 3]


def test_verify_finds_nothing_broken_and_says_what_does_not_apply(units):
    checks = {check.name: check for check in verify(units, [wave(16000), wave(12000, 1)])}
    assert {name for name, check in checks.items() if check.passed is False} == set()
    for name in ("length law", "same codes twice", "batch == single", "token file"):
        assert checks[name].passed is True
    assert "no waveform" in checks["round trip length"].promise
    assert checks["round trip length"].passed is None


def test_decode_refuses_in_one_line_without_a_vocoder(units):
    with pytest.raises(NotSupportedError, match=r"no waveform by themselves.*vocoder") as caught:
        units.decode(units.encode(wave(4000)))
    assert "\n" not in str(caught.value)


def test_decode_sounds_through_a_vocoder(units):
    def vocoder(codes):
        return np.repeat(codes[0] / 100, 320).astype(np.float32)

    speaking = UnitTokenizer(units.source, "speaking", vocoder=vocoder)
    tokens = speaking.encode(wave(4001))
    audio = speaking.decode(tokens)
    assert (len(audio), audio.rate) == (4001, 16000)
    assert audio.samples[320] == np.float32(tokens.codes[0, 1] / 100)


def test_long_audio_is_announced_and_keeps_the_law(units):
    audio = wave(3 * 16000)
    with pytest.warns(UserWarning, match="whole input at once"):
        codes = units.in_windows(1.0).encode(audio).codes
    assert codes.shape == units.encode(audio).codes.shape


@pytest.mark.parametrize("inside", [True, False], ids=["teacher-inside", "teacher-from-a-folder"])
def test_a_folder_gives_the_same_units(teacher, units, tmp_path, inside):
    if not inside:
        save_units(units, tmp_path / "first")
        units = speechtok.load(tmp_path / "first")
    save_units(units, tmp_path / "u", {"description": "test"})
    assert not list((tmp_path / "u").rglob("*.bin")) and not list((tmp_path / "u").rglob("*.pt"))
    loaded = speechtok.load(tmp_path / "u")
    assert (loaded.fingerprint, loaded.name, loaded.scheme, loaded.licence) == (units.fingerprint, "u", "B", "none")
    audio = wave(9000)
    assert np.array_equal(loaded.encode(audio).codes, units.encode(audio).codes)


def test_centres_of_train_units_become_a_tokenizer(units, tmp_path):
    save_units(units, tmp_path / "model")
    said = UnitsConfig("elsewhere", 1, 12, 16, 100, 1.0, **_rest())
    save_centres(tmp_path / "centres", units.source.centres, said)
    made = trained_units(tmp_path / "centres", "made", teacher=str(tmp_path / "model" / "teacher"))
    assert made.fingerprint == units.fingerprint


def _rest() -> dict[str, int | str]:
    named = {"teacher", "layer", "clusters", "dimension", "vectors", "inertia"}
    fields = {name: field for name, field in UnitsConfig.__dataclass_fields__.items() if name not in named}
    return {name: "x" if "str" in str(field.type) else 1 for name, field in fields.items()}


def test_a_bundled_folder_is_listed_without_torch(units, tmp_path, monkeypatch):
    from speechtok.tokenizers import registry

    save_units(units, tmp_path / "my-units", {"licence_code": "Apache-2.0"})
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    (entry,) = [entry for entry in speechtok.models() if entry.bundled]
    assert (entry.name, entry.scheme, entry.codebook_sizes, entry.frame_rate) == ("my-units", "B", (12,), 50)
    assert speechtok.load("my-units").fingerprint == units.fingerprint


DAMAGE = {
    "version": ({"version": 2}, "version 2.*upgrade"),
    "kind": ({"kind": "other"}, "kind 'other'"),
    "shape": ({"shape": {}}, "shape"),
    "section": ({"units": {}}, "features in its config.json must be a mapping"),
    "features": ({"units": {"features": {"kind": "x"}}}, "features of kind 'x'"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_config_is_one_line(units, tmp_path, change, message):
    save_units(units, tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(CheckpointError, match=message) as caught:
        speechtok.load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_missing_or_damaged_centres_are_refused(units, tmp_path):
    save_units(units, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="truncated"):
        speechtok.load(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        speechtok.load(tmp_path)


def test_centres_of_another_width_are_refused(teacher):
    with pytest.raises(ConfigError, match="do not fit"):
        Clusters(TeacherFeatures(teacher), torch.zeros(3, 4))


def test_tokens_of_other_centres_are_refused(units):
    other = UnitTokenizer(Clusters(units.source.features, units.source.centres + 1), "other")
    with pytest.raises(TokenError, match="made by tiny-units"):
        other.decode(units.encode(wave(1000)))


def test_mel_frames_can_be_clustered_and_windows_change_nothing():
    mel = MelFeatures(n_mels=20)
    audio = wave(20000)
    rows = mel.rows(torch.tensor(audio.samples))
    units = UnitTokenizer(Clusters(mel, rows[::8].clone()), "mel-units")
    assert np.array_equal(units.in_windows(0.2).encode(audio).codes, units.encode(audio).codes)


def test_the_internal_quantizer_chooses_what_transformers_chooses(network):
    source = InternalQuantizer(network, normalise=False)
    tokenizer = UnitTokenizer(source, "w2v2")
    audio = wave(16000)
    codes = tokenizer.encode(audio).codes
    assert codes.shape == (2, 50) and tokenizer.codebook_sizes == (20, 20)
    with torch.no_grad():
        out = network.wav2vec2.feature_extractor(torch.tensor(audio.samples)[None]).transpose(1, 2)
        expected, _ = network.quantizer(network.wav2vec2.feature_projection(out)[1])
    vectors = network.quantizer.codevectors.reshape(2, 20, -1)
    chosen = torch.cat([vectors[group, torch.tensor(codes[group, :49])] for group in range(2)], dim=1)
    assert torch.equal(chosen, expected[0])


def test_the_internal_quantizer_survives_a_folder(network, tmp_path):
    tokenizer = UnitTokenizer(InternalQuantizer(network, normalise=True), "w2v2")
    save_units(tokenizer, tmp_path / "q")
    loaded = speechtok.load(tmp_path / "q")
    audio = wave(5000)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert np.array_equal(loaded.encode(audio).codes, tokenizer.encode(audio).codes)
    assert loaded.encode(audio, levels=1).codes.shape == (1, 16)


def test_a_network_without_a_quantizer_is_refused(teacher):
    with pytest.raises(ConfigError, match="no quantizer"):
        InternalQuantizer(teacher.network)


def test_units_of_a_bundled_clip(units, demo_clips, cli, tmp_path):
    path = tmp_path / "a.tokens.safetensors"
    code, _, err = cli("encode", demo_clips[0], "-o", path, load=lambda *_, **__: units)
    assert (code, err) == (0, [])
    assert speechtok.Tokens.load(path) == units.encode(read(demo_clips[0]))
    code, _, err = cli("decode", path, "-o", tmp_path / "a.wav", load=lambda *_, **__: units)
    assert code == 2 and "no waveform" in err[0] and not (tmp_path / "a.wav").exists()
