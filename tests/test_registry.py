"""How a name becomes a tokenizer, and what is said when it does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest

import speechtok
from speechtok.errors import CheckpointError
from speechtok.tokenizers import registry
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.verify import verify
from tiny import signal, tiny_codec, tiny_tokenizer

OFFICIAL = Path(__file__).parent / "data" / "speechtokenizer-tiny"
CARD = {"scheme": "A", "semantic_levels": [], "licence_weights": "CC0-1.0", "licence_code": "Apache-2.0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_codec(tiny_codec("frame"), path, CARD)
    return path


def test_a_folder_loads_with_its_card(folder):
    tokenizer = speechtok.load(folder)
    assert (tokenizer.name, tokenizer.scheme, tokenizer.semantic_levels) == ("tiny", "A", ())
    assert tokenizer.licence == "CC0-1.0"
    assert tokenizer.fingerprint == tiny_tokenizer("frame").fingerprint


@pytest.mark.parametrize("place", ["config.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_refused(folder, tmp_path, place):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / place).unlink()
    with pytest.raises(CheckpointError, match=f"copy: no {'config' if 'config' in place else 'weights'}"):
        speechtok.load(tmp_path / "copy")


def test_a_folder_above_the_model_says_where_it_is(folder):
    with pytest.raises(CheckpointError, match=r"did you mean .*tiny\?"):
        speechtok.load(folder.parent)


def test_several_weight_files_must_be_told_apart(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"several weight files \(a\.pt, b\.pt\)"):
        speechtok.load(tmp_path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(CheckpointError, match=r"known names are .*fnlp/SpeechTokenizer"):
        speechtok.load("speechtokenizer")


@pytest.mark.parametrize("files", [("a.json",), ("a.pt", "b.pt"), ("a.json", "b.pt", "c.pt")], ids=len)
def test_a_pair_must_be_a_pair(files):
    with pytest.raises(CheckpointError, match="pair"):
        speechtok.load(files)


def test_official_files_load_as_folder_as_pair_and_as_weights():
    config, weights = OFFICIAL / "config.json", OFFICIAL / "SpeechTokenizer.pt"
    places = (OFFICIAL, str(OFFICIAL), (config, weights), [str(weights), str(config)], weights)
    assert len({speechtok.load(place).fingerprint for place in places}) == 1
    assert {speechtok.load(place).name for place in places[:4]} == {"speechtokenizer-tiny"}


def test_converted_official_files_are_the_same_tokenizer(tmp_path):
    from speechtok.cli import main

    argv = ["convert", OFFICIAL / "SpeechTokenizer.pt", OFFICIAL / "config.json", "-o", tmp_path / "new"]
    assert main([str(word) for word in argv]) == 0
    converted, original = speechtok.load(tmp_path / "new"), speechtok.load(OFFICIAL)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors"]
    audio = signal(1.0, rate=16000)
    assert converted.fingerprint == original.fingerprint
    assert (converted.encode(audio).codes == original.encode(audio).codes).all()


# the card


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("semantic_levels", 0),
        ("semantic_levels", "01"),
        ("semantic_levels", [4]),
        ("semantic_levels", [-1]),
        ("semantic_levels", [True]),
        ("semantic_levels", [0.0]),
        ("semantic_levels", None),
        ("scheme", "F"),
        ("scheme", "AB"),
        ("scheme", ["E"]),
        ("licence_weights", 4),
    ],
    ids=str,
)
def test_a_card_that_cannot_be_is_refused(monkeypatch, folder, tmp_path, field, value):
    shutil.copytree(folder, tmp_path / "copy")
    config = tmp_path / "copy" / "config.json"
    header = json.loads(config.read_text())
    header["card"][field] = value
    config.write_text(json.dumps(header))
    with pytest.raises(CheckpointError, match=rf"config\.json: {field} of its card"):
        speechtok.load(tmp_path / "copy")
    monkeypatch.setattr(registry, "BUNDLED", tmp_path)
    with pytest.raises(CheckpointError, match=rf"config\.json: {field} of its card"):
        speechtok.models()


# the Hub, without a network


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("some/clip.wav", "no such file"),
        ("some/a.tokens.safetensors", "no such file"),
        ("some/SpeechTokenizer.pt", "no such file"),
        ("runs/missing", "no such model"),
    ],
)
def test_a_missing_local_file_asks_no_hub(monkeypatch, tmp_path, name, part):
    def never(*_, **__):
        raise AssertionError("the Hub must not be asked")

    monkeypatch.setattr(registry, "_download", never)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(CheckpointError, match=f"{name}: {part}"):
        speechtok.load(name)


@pytest.mark.parametrize(
    ("name", "repository", "prefix"),
    [
        ("fnlp/SpeechTokenizer", "fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg/"),
        ("fnlp/AnyGPT-speech-modules", "fnlp/AnyGPT-speech-modules", "speechtokenizer/"),
        ("some/codec", "some/codec", ""),
        ("some/codec/sub/folder", "some/codec", "sub/folder/"),
    ],
)
def test_a_hub_id_fetches_only_the_files_it_needs(monkeypatch, folder, tmp_path, name, repository, prefix):
    asked = {}

    def fake(repo, allow_patterns):
        asked[repo] = allow_patterns
        shutil.copytree(folder, tmp_path / prefix, dirs_exist_ok=True)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    assert speechtok.load(name).name == name
    assert list(asked) == [repository]
    assert {Path(pattern).name for pattern in asked[repository]} >= {"config.json", "SpeechTokenizer.pt"}
    assert all(pattern.startswith(prefix) and "*" not in pattern for pattern in asked[repository])


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError(), ValueError("bad id")], ids=repr)
def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch, error):
    def fake(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    with pytest.raises(CheckpointError, match="connect to the network or give the folder") as caught:
        speechtok.load("some/codec")
    assert "some/codec" in str(caught.value)
    assert "\n" not in str(caught.value)


# the list


def test_entries_carry_true_rates():
    entry = next(entry for entry in speechtok.models() if entry.name == "fnlp/SpeechTokenizer")
    assert (entry.frame_rate, entry.levels, entry.bitrate) == (50, 8, 4000)


def test_a_bundled_folder_is_listed_and_loads_by_name(monkeypatch, folder):
    monkeypatch.setattr(registry, "BUNDLED", folder.parent)
    entry, tokenizer = speechtok.models()[0], speechtok.load("tiny")
    assert (entry.name, entry.bundled, entry.scheme, entry.licence_weights) == ("tiny", True, "A", "CC0-1.0")
    assert (entry.sample_rate, entry.hop, entry.bitrate) == (8000, 40, tokenizer.bitrate)
    assert json.loads(json.dumps(entry.to_dict()))["codebook_sizes"] == list(tokenizer.codebook_sizes)


# text is held to the contract in test_text.py: a recogniser takes minutes for what verify encodes
bundled = [entry.name for entry in speechtok.models() if entry.bundled and entry.scheme != "D"]


@pytest.mark.parametrize("name", bundled)
def test_a_bundled_model_keeps_every_promise(name):
    tokenizer = speechtok.load(name)
    broken = {check.name: check.measured for check in verify(tokenizer) if check.passed is False}
    assert broken == {}


def test_the_default_is_bundled():
    assert registry.DEFAULT in bundled
    assert speechtok.load().name == registry.DEFAULT


def test_every_scheme_has_a_tokenizer_that_works_offline():
    assert {entry.scheme for entry in speechtok.models() if entry.bundled} == set("ABCDE")
