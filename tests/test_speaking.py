"""Spoken sentences are rated beside their recordings; what cannot be spoken is counted with its reason."""

import json

import numpy as np
import pytest

from speechtok.audio import write
from speechtok.bench import speaking
from speechtok.bench.conversion import Tools
from speechtok.bench.speaking import (
    MEASURES,
    RECORDING,
    RESYNTHESIS,
    REVOICED,
    ROLES,
    SPOKEN,
    Bench,
    choose_sentences,
    evaluate,
    main,
)
from speechtok.chain.recogniser import save_recogniser
from speechtok.chain.saved import tokens_section
from speechtok.chain.synthesis import Speaker
from speechtok.chain.t2s import Sampling, save_t2s
from speechtok.errors import ConfigError
from speechtok.nn.unmasking import UnmaskingConfig
from tiny import signal
from tiny_chain import tiny_recogniser

pytest.importorskip("transformers", reason="the speaker's network is that of transformers")
pytest.importorskip("tokenizers", reason="its text is that of tokenizers")
pytest.importorskip("jiwer", reason="error rates are counted by jiwer")

from tiny_speaking import tiny_s2a, tiny_speaker, tiny_t2s, tiny_vocabulary

ROWS = [("a", "s", "that cat"), ("b", "s", "Ünknown"), ("c", "t", "the dog"), ("d", "unknown", "a dog"), ("e", "t", "")]


class Ears:
    """A judge that hears one text, and an encoder of the spectrum."""

    name = "ears"

    def transcribe(self, audio):
        return "that dog"

    def embed(self, audio):
        parts = np.array([part.mean() for part in np.array_split(np.abs(np.fft.rfft(audio.samples)), 4)])
        return parts / np.linalg.norm(parts)


@pytest.fixture
def manifest(tmp_path):
    lines = ["path\tsplit\tspeaker\ttext"]
    for place, (name, speaker, text) in enumerate(ROWS):
        write(tmp_path / f"{name}.wav", signal(1.2, seed=place))
        lines.append(f"{name}.wav\ttest\t{speaker}\t{text}")
    lines.append("a.wav\ttrain\tt\tthe dog")
    (tmp_path / "data.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data.tsv"


def test_voices_are_other_utterances_of_the_speaker(manifest):
    sentences = choose_sentences(manifest, "test", 9)
    assert [(one.said[0], one.voice[0]) for one in sentences] == [("a", "b"), ("b", "a"), ("c", "e")]
    assert speaking.speakers_in_train(manifest, sentences) == ["t"]
    assert len(choose_sentences(manifest, "test", 2)) == 2
    with pytest.raises(ConfigError, match="0 sentences cannot be spoken"):
        choose_sentences(manifest, "test", 0)
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:2]) + "\n")
    with pytest.raises(ConfigError, match="speaking needs a named speaker of 'test' with a text and another utterance"):
        choose_sentences(manifest, "test", 9)


def test_sentences_are_rated_beside_their_recordings_and_failures_counted(manifest, model):
    (manifest.parent / "e.wav").write_bytes(b"no audio")
    (manifest.parent / "c.wav").write_bytes((manifest.parent / "d.wav").read_bytes())
    speaker = Speaker(model, tiny_t2s(positions=1500), tiny_vocabulary(), tiny_s2a())
    ears = Ears()
    bench = Bench(speaker, Tools(ears, ears), None, Sampling(ratio=2.0), UnmaskingConfig())
    sentences = choose_sentences(manifest, "test", 9)  # those of speaker s: a voice that cannot be read is not drawn
    found = evaluate(bench, sentences, 0, None)
    rows = {(row["role"], row["measure"]): row for row in found["summary"]}
    assert found["n"] == 2 and rows[SPOKEN, "judge_wer"]["n"] == 1 and rows[SPOKEN, "judge_wer"]["mean"] == 0.5
    ((reason, count),) = rows[SPOKEN, "voice_cosine"]["reasons"].items()
    assert "unknown symbols" in reason and count == 1
    assert rows[REVOICED, "judge_wer"]["n"] == 1 and rows[REVOICED, "judge_wer"]["failed"] == 1
    assert rows[RECORDING, "judge_wer"]["n"] == 2 and rows[RESYNTHESIS, "voice_cosine"]["n"] == 2
    first = next(row for row in found["sentences"] if row["role"] == SPOKEN)
    assert first["duration_ratio"] > 0 and first["ran_on"] in (0.0, 1.0)
    assert not any("asr_wer" in row for row in found["sentences"])


def test_the_command_lets_a_token_recogniser_read_what_was_spoken(manifest, model, folder, monkeypatch, capsys):
    monkeypatch.setattr(speaking, "load_judge", lambda name: Ears())
    monkeypatch.setattr(speaking, "load_encoder", lambda name: Ears())
    place = tiny_speaker(manifest.parent / "speaker", model)
    save_t2s(tiny_t2s(positions=1500), tiny_vocabulary(), place / "t2s", tokens_section(model))
    asr = manifest.parent / "asr"
    save_recogniser(tiny_recogniser(34, sizes=(32,)), tiny_vocabulary(), asr, tokens_section(model))
    monkeypatch.setattr(speaking, "SearchConfig", lambda: speaking_search())
    options = ["--model", place, "--tokenizer", folder, "--data", manifest, "--sentences", "1", "--asr", asr]
    out = manifest.parent / "out.json"
    assert main([*map(str, [*options, "--audio", manifest.parent / "heard", "-o", out])]) == 0
    document = json.loads(out.read_text())
    roles = {(row["role"], row["measure"]) for row in document["summary"]}
    assert {(SPOKEN, measure) for measure in MEASURES} <= roles and (RECORDING, "asr_wer") in roles
    assert (RESYNTHESIS, "asr_wer") not in roles and set(document["models"]) == {"t2s", "s2a", "asr"}
    assert "| spoken |" in capsys.readouterr().out
    assert {path.name for path in (manifest.parent / "heard").iterdir()} == {f"001-{role}.wav" for role in ROLES}
    save_recogniser(tiny_recogniser(34, sizes=(32, 32)), tiny_vocabulary(), asr, tokens_section(model))
    with pytest.raises(ConfigError, match="hears 2 levels; semantic tokens are one"):
        main([*map(str, [*options, "-o", out])])


def speaking_search():
    from speechtok.chain.decoding import SearchConfig

    return SearchConfig(beam=1, ctc_weight=0.0)
