"""Fixtures of several tests: speech, bundled clips, the shared folder if there is one, a tiny model, the command."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile

from speechtok.audio import Audio, write
from speechtok.cli import main
from speechtok.guidance.phones import Segment, write_segments
from speechtok.tokenizers.checkpoint import save_codec
from tiny import signal, tiny_codec, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TONES = {"SIL": 0, "AA": 400, "S": 3000}

# The same examples on every run: a failure is the change's, not the draw's. No deadline: machines differ.
hypothesis.settings.register_profile(
    "speechtok",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("speechtok")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of corpora and reference tensors: SPEECHTOK_SHARED, else `shared` beside the checkout."""
    folder = Path(os.environ.get("SPEECHTOK_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; set SPEECHTOK_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def demo_clips() -> list[Path]:
    """The bundled recordings, in the order of their manifest."""
    folder = ROOT / "src" / "speechtok" / "assets" / "demo"
    if not (folder / "manifest.json").is_file():
        pytest.skip(f"no bundled clips at {folder}")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [folder / entry["file"] for entry in manifest["utterances"]]


@pytest.fixture(scope="session")
def speech() -> Callable[..., Audio]:
    """speech(seconds, rate=16000, seed=0): a voice-like signal, the same for the same arguments."""
    return synthetic_speech


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Folder with four short chirps and their manifest ``corpus.tsv``: three for training, one held out."""
    rows = ["path\tsplit\tspeaker\ttext"]
    for i in range(4):
        t = np.arange(8000) / 16000
        soundfile.write(tmp_path / f"{i}.wav", 0.3 * np.sin(2 * np.pi * (200 + 100 * i) * t * (1 + t)), 16000)
        rows.append(f"{i}.wav\t{'dev' if i == 3 else 'train'}\ts\ttext")
    (tmp_path / "corpus.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def speech_folder(tmp_path):
    """Utterances whose phones are silence and two tones, their manifest and alignment; one has no alignment."""
    rows, aligned = ["path\tsplit\tspeaker\ttext"], {}
    for i, order in enumerate(["SIL AA S SIL", "S AA SIL S", "AA SIL AA S", "SIL S AA S", "AA AA AA AA"]):
        time, segments, parts = np.arange(3200) / 16000, [], []
        for k, phone in enumerate(order.split()):
            parts.append(0.3 * np.sin(2 * np.pi * TONES[phone] * time))
            segments.append(Segment(0.2 * k, 0.2 * (k + 1), phone))
        soundfile.write(tmp_path / f"{i}.wav", np.concatenate(parts), 16000)
        rows.append(f"{i}.wav\t{'dev' if i == 3 else 'train'}\ts\tit's a text")
        if i < 4:
            aligned[str(i)] = segments
    (tmp_path / "corpus.tsv").write_text("\n".join(rows) + "\n")
    write_segments(tmp_path / "phones.tsv", aligned)
    return tmp_path


@pytest.fixture(scope="module")
def model():
    """A small tokenizer with random weights."""
    return tiny_tokenizer("frame")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder on disk."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_codec(tiny_codec("frame"), path, {"scheme": "E"})
    return path


@pytest.fixture
def clip(tmp_path):
    """Half a second in a file whose name has two dots."""
    path = tmp_path / "clip.one.wav"
    write(path, signal(0.5))
    return path


@pytest.fixture
def cli(model, capsys):
    """Run a command on the model in memory: exit code, standard output, lines of standard error."""

    def run(*argv, load=lambda *_, **__: model):
        code = main([str(word) for word in argv], load=load)
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


def synthetic_speech(seconds: float, rate: int = 16000, seed: int = 0) -> Audio:
    """Syllables of a gliding harmonic voice with a falling spectrum, hiss between them, peak 0.5."""
    random = np.random.default_rng(seed)
    time = np.arange(max(1, round(seconds * rate))) / rate
    pitch = random.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.3, 0.8) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    harmonics = np.arange(1, 1 + int(min(3500, 0.45 * rate) / pitch.max()))
    formants = random.uniform((300, 900, 2200), (800, 1800, 3000))
    heights = pitch.mean() * harmonics[:, None]
    gains = (np.exp(-(((heights - formants) / 250) ** 2)).sum(axis=1) + 0.05) / np.sqrt(harmonics)
    voice = (gains[:, None] * np.sin(harmonics[:, None] * phase)).sum(axis=0)
    syllables = np.clip(np.sin(2 * np.pi * 2.0 * time + random.uniform(0, 6)) + 0.3, 0, 1)
    signal = voice * syllables + 0.02 * random.standard_normal(len(time))
    return Audio((0.5 * signal / np.abs(signal).max()).astype(np.float32), rate)
