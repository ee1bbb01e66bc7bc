"""How units sound again: the benchmark of vocoders, and the conversion of whole voices."""

import json

import pytest

from conftest import synthetic_speech
from speechtok.audio import write
from speechtok.bench import conversion, vocoding
from speechtok.bench.facts import Evaluation
from speechtok.errors import ConfigError
from test_vc import Pitch, Words
from tiny_vocoder import speaking_units, tiny_units


@pytest.fixture(scope="module")
def speaking():
    return speaking_units()


@pytest.fixture
def manifest(tmp_path):
    """Two utterances of one speaker, one of another, one broken."""
    rows = ["path\tsplit\tspeaker\ttext"]
    for i, speaker in enumerate("aabb"):
        write(tmp_path / f"{i}.wav", synthetic_speech(0.7, seed=i))
        rows.append(f"{i}.wav\ttest\t{speaker if i != 2 else 'c'}\tone two")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data.tsv"


def test_prompts_are_of_the_same_speaker_and_the_same_every_time(manifest):
    chosen = vocoding.choose_spoken(Evaluation(str(manifest), "test"))
    assert chosen == vocoding.choose_spoken(Evaluation(str(manifest), "test"))
    others = {one.item.name: one.other and one.other.name for one in chosen}
    assert others == {"0": "1", "1": "0", "2": None, "3": None}


def test_the_benchmark_tells_prompts_apart_and_counts_failures(manifest, speaking, monkeypatch, capsys):
    pytest.importorskip("jiwer", reason="jiwer is not installed")
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    (manifest.parent / "3.wav").write_bytes(b"RIFF nothing of the kind")
    monkeypatch.setattr(vocoding.speechtok, "load", lambda name: speaking)
    monkeypatch.setattr(vocoding, "load_judge", lambda name: Words())
    monkeypatch.setattr(vocoding, "load_encoder", lambda name: Pitch())
    out = manifest.parent / "result"
    assert vocoding.main(["--data", str(manifest), "--model", "x", "-o", str(out)]) == 0
    document = json.loads((out / "vocoding.json").read_text())
    found = {(row["role"], row["measure"]): row for row in document["summary"]}
    assert {role for role, _ in found} == set(vocoding.ROLES)
    for (role, measure), row in found.items():
        assert row["n"] + row["failed"] == document["n"] == 4, (role, measure)
    assert found["source", "cosine_to_source"]["mean"] == pytest.approx(1)
    assert found["source", "cosine_to_source"]["failed"] == 1
    assert found["another utterance", "wer"]["reasons"][vocoding.ALONE] == 1
    assert ("the vocoder's own voice", "cosine_to_prompt") not in found
    assert "another utterance" in capsys.readouterr().out


def test_units_without_a_voice_are_refused():
    with pytest.raises(ConfigError, match="cannot be given a voice"):
        vocoding.evaluate(tiny_units(), [], vocoding.Tools(Words(), Pitch()))


def test_whole_voices_are_converted_in_one_row(manifest, speaking):
    pytest.importorskip("jiwer", reason="jiwer is not installed")
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    pairs = conversion.choose_pairs(Evaluation(str(manifest), "test"))
    found = conversion.evaluate(speaking, pairs, [slice(1, 4)], conversion.Tools(Words(), Pitch()))
    assert {row["role"] for row in found["summary"]} == {"source", "resynthesis", conversion.WHOLE}
