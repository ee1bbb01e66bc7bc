"""The bundled recogniser and speaker: they are there, small, say what they are, and work offline."""

from __future__ import annotations

import json

import pytest
import soundfile

from speechtok.bench.judge import error_scores
from speechtok.chain.saved import read_header
from speechtok.chain.synthesis import BUNDLED
from speechtok.cli import main
from speechtok.clips import bundled_clips

pytest.importorskip("tokenizers", reason="text vocabularies are made by tokenizers")
pytest.importorskip("transformers", reason="the speaker is transformers' Llama")
pytest.importorskip("jiwer", reason="error rates are counted by jiwer")


def test_they_are_small_and_say_what_they_are():
    assert sum(path.stat().st_size for path in BUNDLED.rglob("*")) < 40e6
    for part, kind in (("asr", "speechtok.asr"), ("t2s", "speechtok.t2s"), ("s2a", "speechtok.s2a")):
        header = read_header(BUNDLED / part, kind)
        assert header["tokens"]["tokenizer"] == "speechtok-base"
        assert header["card"]["licence_weights"] == "CC BY 4.0" and "LibriSpeech" in header["card"]["attribution"]


def test_speech_is_transcribed(capsys):
    """Far from well: half of the characters, of somebody's voice that was heard in training."""
    clip = next(clip for clip in bundled_clips() if clip.path.stem == "kathleen")
    assert main(["transcribe", str(clip.path), "--json", "--beam", "4"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert error_scores(clip.text, row["text"])[1].value < 0.6


def test_a_text_is_spoken(tmp_path):
    options = ["--voice", str(bundled_clips()[0].path), "-o", str(tmp_path / "out.wav"), "--passes", "1"]
    assert main(["speak", "Good morning.", *options]) == 0
    wave, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 16000 and 0.2 < len(wave) / rate < 15 and abs(wave).max() > 0.01
