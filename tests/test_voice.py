"""Equal error rates by brute force, failures that count, and the encoders on real voices."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from speechtok.audio import Audio, read, write
from speechtok.bench import voice
from speechtok.bench.metrics import MetricError
from speechtok.bench.voice import Remembered, TeacherEncoder, load_encoder, speaker_eer, voice_cosine
from speechtok.clips import bundled_clips
from speechtok.errors import AudioError, ConfigError
from speechtok.guidance.speaker import SpeakerTeacher, save_ecapa
from speechtok.nn.ecapa import ECAPA, ECAPAConfig
from speechtok.train.data import read_manifest

RATE = 16000


# -- equal error rate of a manifest -----------------------------------------------------------------------------------


class Pitch:
    """An encoder for the test: the direction is the place of the strongest frequency."""

    name = "pitch"

    def embed(self, audio):
        spectrum = np.abs(np.fft.rfft(audio.samples, 8000))
        if not spectrum.any():
            raise MetricError("there is no voice in silence")
        angle = np.argmax(spectrum) / len(spectrum) * np.pi
        return np.array([np.cos(angle), np.sin(angle)])


@pytest.fixture
def manifest(tmp_path):
    """Two voices with three tones each."""
    time = np.arange(RATE // 2) / RATE
    rows = ["path\tsplit\tspeaker"]
    for i, pitch in enumerate((200, 220, 240, 1500, 1520, 1540)):
        write(tmp_path / f"{i}.wav", Audio(0.3 * np.sin(2 * np.pi * pitch * time).astype(np.float32), RATE))
        rows.append(f"{i}.wav\tdev\t{'low' if pitch < 1000 else 'high'}")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "data.tsv"


def test_bad_utterances_are_counted_and_change_no_rate(manifest):
    clean = speaker_eer(Pitch(), read_manifest(manifest, "dev"))
    assert (clean["mean"], clean["n"], clean["pairs"], clean["speakers"], clean["failed"]) == (0, 6, 15, 2, 0)
    (manifest.parent / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    write(manifest.parent / "silent.wav", Audio(np.zeros(4000, np.float32), RATE))
    with manifest.open("a") as file:
        file.write("broken.wav\tdev\tlow\nsilent.wav\tdev\thigh\n0.wav\tdev\tunknown\n")
    spoilt = speaker_eer(Pitch(), read_manifest(manifest, "dev"))
    assert spoilt["failed"] == 3
    assert spoilt["reasons"] == {
        "the file cannot be read": 1,
        "there is no voice in silence": 1,
        "the manifest names no speaker": 1,
    }
    assert {k: spoilt[k] for k in ("mean", "low", "high", "n")} == {k: clean[k] for k in ("mean", "low", "high", "n")}


def test_a_recording_is_heard_once(clips):
    heard = []

    class Counting(Pitch):
        def embed(self, audio):
            heard.append(audio)
            return super().embed(audio)

    encoder = Remembered(Counting())
    again = Audio(clips[0].samples.copy(), RATE)
    assert (encoder.embed(clips[0]) == encoder.embed(again)).all() and len(heard) == 1
    encoder.embed(Audio(clips[0].samples, 8000))
    encoder.embed(clips[1])
    assert len(heard) == 3


def test_one_speaker_alone_has_no_rate(manifest):
    with pytest.raises(ConfigError, match="two speakers"):
        speaker_eer(Pitch(), read_manifest(manifest, "dev")[:3])


def test_the_command_writes_the_rate(manifest, monkeypatch, capsys):
    monkeypatch.setattr(voice, "load_encoder", lambda name: Pitch())
    out = manifest.parent / "out.json"
    assert voice.main(["--data", str(manifest), "--split", "dev", "-o", str(out)]) == 0
    assert "EER 0.00%" in capsys.readouterr().out
    assert json.loads(out.read_text())["speaker_eer"]["pairs"] == 15


# -- encoders -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips():
    return [Audio(read(clip.path).samples[: 3 * RATE], RATE) for clip in bundled_clips()[:2]]


@pytest.fixture(scope="module", params=["resemblyzer", "ecapa"])
def encoder(request, tmp_path_factory):
    """Resemblyzer where it is installed, and an ECAPA-TDNN with random weights from a file."""
    if request.param == "resemblyzer":
        pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed")
        return load_encoder("resemblyzer")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("ecapa") / "model.safetensors"
    save_ecapa(ECAPA(ECAPAConfig(channels=16, aggregate=24, embedding=12, scale=4, squeeze=4, attention=4)), path)
    return load_encoder(str(path))


def test_a_voice_is_nearest_to_itself(encoder, clips):
    first, second = clips
    itself, louder = voice_cosine(encoder, first, first), voice_cosine(encoder, first, Audio(first.samples * 0.5, RATE))
    assert itself.value == pytest.approx(1, abs=1e-5)
    assert voice_cosine(encoder, first, second).value < louder.value <= 1 + 1e-6
    assert np.linalg.norm(encoder.embed(first)) == pytest.approx(1, abs=1e-5)


def test_silence_has_no_voice(encoder, clips):
    nothing = voice_cosine(encoder, clips[0], Audio(np.zeros(RATE, np.float32), RATE))
    assert nothing.value is None and "silence" in nothing.failure


def test_what_is_too_short_for_the_network_is_a_counted_failure(manifest):
    network = ECAPA(ECAPAConfig(channels=16, aggregate=24, embedding=12, scale=4, squeeze=4, attention=4))
    encoder = TeacherEncoder(SpeakerTeacher(network), "tiny")
    write(manifest.parent / "short.wav", Audio(np.ones(639, np.float32), RATE))
    write(manifest.parent / "just.wav", Audio(np.ones(640, np.float32), RATE))
    with manifest.open("a") as file:
        file.write("short.wav\tdev\tlow\njust.wav\tdev\tlow\n")
    found = speaker_eer(encoder, read_manifest(manifest, "dev"))
    assert (found["n"], found["reasons"]) == (7, {"it is too short for the speaker network": 1})


def test_resemblyzer_tells_the_bundled_speakers_apart(clips):
    pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed")
    encoder = load_encoder("resemblyzer")
    halves = [Audio(clip.samples[i : i + 24000], RATE) for clip in clips for i in (0, 24000)]
    same = voice_cosine(encoder, halves[0], halves[1]).value
    assert same > max(voice_cosine(encoder, halves[0], other).value for other in halves[2:])


def test_a_click_has_no_voice_for_resemblyzer():
    pytest.importorskip("resemblyzer", reason="Resemblyzer is not installed")
    click = np.zeros(RATE, np.float32)
    click[100] = 0.5
    with pytest.raises(MetricError, match="voice"):
        load_encoder("resemblyzer").embed(Audio(click, RATE))


def test_the_teacher_is_heard_at_its_own_rate(clips):
    torch.manual_seed(0)
    network = ECAPA(ECAPAConfig(channels=16, aggregate=24, embedding=12, scale=4, squeeze=4, attention=4))
    encoder = TeacherEncoder(SpeakerTeacher(network), "tiny")
    assert voice_cosine(encoder, clips[0], clips[0].resample(32000)).value > 0.99


def test_a_missing_package_names_the_whole_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "resemblyzer", None)
    with pytest.raises(ConfigError) as caught:
        load_encoder("resemblyzer")
    assert voice.INSTALL in str(caught.value) and "--no-deps" in voice.INSTALL


def test_the_broken_file_is_really_broken(tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    with pytest.raises(AudioError):
        read(tmp_path / "broken.wav")
