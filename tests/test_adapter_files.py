"""What stands in the files and the list of foreign codecs: other models, refusals, names, published numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import speechtok
from foreign import ACOUSTIC, KINDS, SEMANTIC, changed, copy_of, save_all, save_foreign
from speechtok.audio import Audio
from speechtok.cli import main
from speechtok.errors import CheckpointError, SpeechtokError, TokenError
from speechtok.tokenizers import registry
from speechtok.tokenizers.adapters import load as adapters
from speechtok.tokenizers.published import HUB, REFUSED
from tiny import signal


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_all(tmp_path_factory.mktemp("foreign"))


@pytest.fixture(scope="module")
def tokenizers(folders):
    return {kind: speechtok.load(folder) for kind, folder in folders.items()}


def one_line(error):
    return "\n" not in str(error.value)


# any other model


@pytest.mark.parametrize("kind", ["dac", "mimi", "xcodec"])
def test_the_generic_adapter_gives_the_same_codes(monkeypatch, kind, folders, tokenizers):
    monkeypatch.setattr(adapters, "KINDS", {})
    generic, own = speechtok.load(folders[kind]), tokenizers[kind]
    audio = Audio(signal(1.0, own.sample_rate).samples[: 12 * own.hop], own.sample_rate)
    assert (generic.sample_rate, generic.hop, generic.codebook_sizes) == (own.sample_rate, own.hop, own.codebook_sizes)
    assert (generic.encode(audio).codes == own.encode(audio).codes).all()
    assert (generic.scheme, generic.semantic_levels) == ("A", ())
    assert np.array_equal(generic.decode(generic.encode(audio)).samples, own.decode(own.encode(audio)).samples)
    with pytest.raises(TokenError, match="without their first levels"):
        generic.codec.decode(torch.zeros(1, 1, 3, dtype=torch.long), first_level=1)


def test_a_model_that_is_no_tokenizer_is_one_line(tmp_path):
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(**{key: value for key, value in SEMANTIC.items() if key != "model_type"})
    HubertModel(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"hubert model that cannot be used.*sampling_rate") as error:
        speechtok.load(tmp_path)
    assert one_line(error)


# refusals


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("encodec", {"audio_channels": 2}, "2 channels"),
        ("encodec", {"normalize": True}, "loudness"),
        ("encodec", {"chunk_length_s": 1.0, "overlap": 0.01}, "overlapping chunks"),
        ("mimi", {"audio_channels": 2}, "2 channels"),
        ("mimi", {"decoder_config": None}, "one half"),
        ("dac", {"model_type": "nobody_knows"}, "nobody_knows"),
        ("dac", {"codebook_size": "many"}, "cannot load"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_in_one_line(folders, tmp_path, kind, changes, reason):
    with pytest.raises(CheckpointError, match=reason) as error:
        speechtok.load(changed(folders[kind], tmp_path, **changes))
    assert one_line(error)


def test_higgs_without_torchaudio_is_one_line(monkeypatch, folders, tmp_path):
    from transformers import HiggsAudioV2TokenizerConfig

    copy = copy_of(folders["xcodec"], tmp_path)
    HiggsAudioV2TokenizerConfig(acoustic_model_config=ACOUSTIC, semantic_model_config=SEMANTIC).save_pretrained(copy)
    monkeypatch.setattr("speechtok.tokenizers.adapters.xcodec.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match="torchaudio") as error:
        speechtok.load(copy)
    assert one_line(error)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"sampling_rate": 44100}, "44100 Hz"), ({"feature_size": 2}, "stereo")],
    ids=["rate", "stereo"],
)
def test_a_preprocessor_that_contradicts_is_refused(folders, tmp_path, changes, reason):
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: asks for {reason}"):
        speechtok.load(changed(folders["dac"], tmp_path, "preprocessor_config.json", **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_missing_weights_are_not_drawn_at_random(kind, folders, tmp_path):
    copy = copy_of(folders[kind], tmp_path)
    weights = load_file(copy / "model.safetensors")
    gone = next(key for key in weights if "decoder" in key)
    save_file(
        {key: value for key, value in weights.items() if key != gone}, copy / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=r"lacks 1 weights of its model") as error:
        speechtok.load(copy)
    assert one_line(error)


@pytest.mark.parametrize("damage", ["truncated", "another shape", "not finite", "no json"])
def test_damage_is_one_line(folders, tmp_path, damage):
    copy = copy_of(folders["dac"], tmp_path)
    path = copy / "model.safetensors"
    weights = load_file(path)
    name = "encoder.conv1.weight"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "no json":
        (copy / "preprocessor_config.json").write_text("{")
    else:
        weights[name] = weights[name][:1].clone() if damage == "another shape" else weights[name] * float("nan")
        save_file(weights, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="copy") as error:
        speechtok.load(copy)
    assert one_line(error)


def test_a_pickle_is_not_read(folders, tmp_path):
    copy = copy_of(folders["dac"], tmp_path)
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        speechtok.load(copy)


def test_without_transformers_the_extra_is_named(monkeypatch, folders):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(CheckpointError, match=r"pip install 'speechtok\[transformers\]'"):
        speechtok.load(folders["dac"])


# names


def test_a_hub_id_loads_through_the_adapter(monkeypatch, folders, tokenizers):
    asked = {}

    def fake(repository, allow_patterns):
        asked[repository] = allow_patterns
        return str(folders["encodec"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", fake)
    tokenizer = speechtok.load("facebook/encodec_24khz")
    assert (tokenizer.name, tokenizer.fingerprint) == ("facebook/encodec_24khz", tokenizers["encodec"].fingerprint)
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= set(asked["facebook/encodec_24khz"])
    assert not [pattern for pattern in asked["facebook/encodec_24khz"] if pattern.endswith(".bin")]


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_known_to_be_unusable_is_never_fetched(monkeypatch, name):
    monkeypatch.setattr(registry, "_download", lambda _: pytest.fail("the Hub must not be asked"))
    with pytest.raises(SpeechtokError, match="known, but it cannot be used") as error:
        speechtok.load(name)
    assert one_line(error)


def test_the_list_is_sound(capsys):
    assert main(["models", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(HUB) <= set(listed)
    assert not set(REFUSED) & set(listed)
    for entry in listed.values():
        assert entry["scheme"] in "ABCDE"
        assert entry["licence_weights"] and entry["licence_code"] and entry["verified"]
    for name in HUB:
        assert "not run" in listed[name]["verified"]


@pytest.mark.parametrize(
    ("name", "frame_rate", "kbits"),
    [
        ("facebook/encodec_24khz", 75, 24),
        ("descript/dac_16khz", 50, 6),
        ("descript/dac_24khz", 75, 24),
        ("descript/dac_44khz", 86.13, 7.75),
        ("kyutai/mimi", 12.5, 4.4),
        ("hf-audio/xcodec-wavlm-mls", 50, 4),
    ],
)
def test_rates_of_the_list_are_the_published_ones(name, frame_rate, kbits):
    entry = HUB[name].entry
    assert entry.frame_rate == pytest.approx(frame_rate, rel=1e-3)
    assert entry.bitrate / 1000 == pytest.approx(kbits, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "kind", "changes"),
    [
        ("facebook/encodec_24khz", "encodec", {"sampling_rate": 24000, "upsampling_ratios": [8, 5, 4, 2],
            "codebook_size": 1024, "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0]}),
        ("facebook/encodec_32khz", "encodec", {"sampling_rate": 32000, "upsampling_ratios": [8, 5, 4, 4],
            "codebook_size": 2048, "target_bandwidths": [2.2], "use_causal_conv": False}),
        ("descript/dac_24khz", "dac", {"sampling_rate": 24000, "downsampling_ratios": [2, 4, 5, 8],
            "decoder_hidden_size": 64, "n_codebooks": 32, "codebook_size": 1024, "hop_length": 512}),
        ("descript/dac_44khz", "dac", {"sampling_rate": 44100, "downsampling_ratios": [2, 4, 8, 8],
            "decoder_hidden_size": 64, "n_codebooks": 9, "codebook_size": 1024}),
        ("kyutai/mimi", "mimi", {"sampling_rate": 24000, "upsampling_ratios": [8, 6, 5, 4], "frame_rate": 12.5,
            "codebook_size": 2048, "num_quantizers": 32}),
        ("hf-audio/xcodec-hubert-librispeech", "xcodec", {"codebook_size": 1024,
            "target_bandwidths": [0.5, 1, 1.5, 2, 4]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_the_list_agrees_with_published_configurations(tmp_path, name, kind, changes):
    """Thin models of the published strides, rates and bandwidths have the numbers of the list."""
    tokenizer, entry = speechtok.load(save_foreign(kind, tmp_path / kind, **changes)), HUB[name].entry
    for field in ("sample_rate", "hop", "codebook_sizes", "semantic_levels", "scheme"):
        assert getattr(tokenizer, field) == getattr(entry, field), field
    audio = signal(0.3, tokenizer.sample_rate)
    tokens = tokenizer.encode(audio, levels=2)
    assert tokens.frames == -(-len(audio) // entry.hop)
    assert len(tokenizer.decode(tokens)) == len(audio)
