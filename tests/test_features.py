"""``speechtok features``: the store belongs to the trainer's speech, and interruptions leave nothing half-written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from speechtok.errors import ConfigError
from speechtok.guidance import extraction
from speechtok.guidance.extraction import extract_store
from speechtok.guidance.naming import describe, named
from speechtok.guidance.store import FeatureStore
from speechtok.guidance.targets import weights_digest
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.train.data import WaveStore, pooled
from tiny_teachers import WIDTH, tiny_hubert


@pytest.fixture(scope="module")
def hubert(tmp_path_factory):
    return tiny_hubert(tmp_path_factory.mktemp("hubert"))


@pytest.fixture
def waves(corpus):
    return WaveStore.build(pooled([corpus / "corpus.tsv"], "train"), 16000, corpus / "cache")


class Failing:
    """The teacher until it has heard so many utterances; then it breaks."""

    def __init__(self, teacher, utterances):
        self.teacher, self.left, self.heard = teacher, utterances, 0
        self.law, self.dimension = teacher.law, teacher.dimension

    def __call__(self, wave, lengths=None):
        if self.heard == self.left:
            raise KeyboardInterrupt
        self.heard += 1
        return self.teacher(wave, lengths)


def test_the_command_writes_what_the_trainer_asks_for(corpus, hubert, waves, cli):
    table = corpus / "corpus.tsv"
    code, out, _ = cli(
        "features", table, table, "-o", corpus / "deep/f.safetensors", "--teacher", hubert, "--layer", 1,
        "--cache", corpus / "cache",
    )  # fmt: skip
    assert (code, out.split(": ")[1]) == (0, f"6 utterances (0 from before), 144 frames of {WIDTH} features\n")
    store = FeatureStore(corpus / "deep/f.safetensors")
    store.check([*waves.lengths, *waves.lengths], 16000)
    assert named(store.teacher) == (str(hubert), 1)
    teacher = load_semantic_teacher(hubert, 1)
    for i, wave in enumerate([*waves, *waves]):
        heard = teacher(torch.from_numpy(wave)[None])[0][0]
        assert torch.allclose(store[i].float(), heard, atol=2e-3)
    assert sorted(path.name for path in (corpus / "deep").iterdir()) == ["f.safetensors"]


@pytest.mark.parametrize(
    ("changed", "kept"),
    [pytest.param("t, layer 1", 2, id="goes on"), pytest.param("t, layer 2", 0, id="another layer begins anew")],
)
def test_an_interrupted_extraction(corpus, hubert, waves, monkeypatch, changed, kept):
    monkeypatch.setattr(extraction, "PART", 1)
    teacher = load_semantic_teacher(hubert, 1)
    with pytest.raises(KeyboardInterrupt):
        extract_store(corpus / "f.safetensors", Failing(teacher, 2), "t, layer 1", waves, waves.lengths)
    assert not (corpus / "f.safetensors").exists()
    assert len(list((corpus / "f.safetensors.parts").glob("*.safetensors"))) == 2
    rest, done = Failing(teacher, 9), []
    assert extract_store(corpus / "f.safetensors", rest, changed, waves, waves.lengths, done=done.append) == kept
    assert (rest.heard, sum(done)) == (3 - kept, 3)
    assert not (corpus / "f.safetensors.parts").exists()
    extract_store(corpus / "straight.safetensors", Failing(teacher, 9), changed, waves, waves.lengths)
    assert (corpus / "f.safetensors").read_bytes() == (corpus / "straight.safetensors").read_bytes()


def test_two_that_share_an_extraction_write_one_store(corpus, hubert, waves, monkeypatch):
    monkeypatch.setattr(extraction, "PART", 1)
    monkeypatch.setattr(extraction, "WAIT", 0.01)
    arguments = (load_semantic_teacher(hubert, 1), "t", waves, waves.lengths)
    extract_store(corpus / "straight.safetensors", *arguments)
    with ThreadPoolExecutor(3) as pool:
        shared = [pool.submit(extract_store, corpus / "f.safetensors", *arguments) for _ in range(3)]
    assert all(one.exception() is None for one in shared)
    assert (corpus / "f.safetensors").read_bytes() == (corpus / "straight.safetensors").read_bytes()
    assert not (corpus / "f.safetensors.parts").exists()


class Breaking(list):
    """Waves of which the third cannot be had."""

    def __getitem__(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_parts_of_a_teacher_that_was_trained_again_are_made_anew(corpus, hubert, waves, monkeypatch):
    monkeypatch.setattr(extraction, "PART", 1)
    for changed, kept in ((False, 2), (True, 0)):
        teacher = load_semantic_teacher(hubert, 1)
        with pytest.raises(KeyboardInterrupt):
            extract_store(corpus / "f.safetensors", teacher, "t", Breaking(waves), waves.lengths)
        if changed:
            next(teacher.parameters()).add_(1)
        assert extract_store(corpus / "f.safetensors", teacher, "t", waves, waves.lengths) == kept
        assert FeatureStore(corpus / "f.safetensors").weights == weights_digest(teacher)


def test_parts_of_other_speech_are_made_anew(corpus, hubert, waves, monkeypatch):
    monkeypatch.setattr(extraction, "PART", 1)
    teacher = load_semantic_teacher(hubert, 1)
    with pytest.raises(KeyboardInterrupt):
        extract_store(corpus / "f.safetensors", Failing(teacher, 2), "t", waves, waves.lengths)
    others = [wave[:4000] for wave in waves]
    assert extract_store(corpus / "f.safetensors", teacher, "t", others, [4000] * 3) == 0
    FeatureStore(corpus / "f.safetensors").check([4000] * 3, 16000)


def test_features_that_are_not_finite_are_refused(corpus, hubert, waves):
    teacher = load_semantic_teacher(hubert, 1)
    broken = [wave.copy() for wave in waves]
    broken[1][100] = float("nan")
    with pytest.raises(ConfigError, match="utterance 1 gave"):
        extract_store(corpus / "f.safetensors", teacher, "t", broken, waves.lengths)
    assert not (corpus / "f.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(["--split", "eval"], "no row has split 'eval'", id="split"),
        pytest.param(["--layer", "7"], "layer is 7; give 0 to 2", id="layer"),
    ],
)
def test_bad_arguments_are_one_line(corpus, hubert, cli, arguments, error):
    code, _, lines = cli(
        "features", corpus / "corpus.tsv", "-o", corpus / "f.safetensors", "--teacher", hubert,
        "--cache", corpus / "cache", *arguments,
    )  # fmt: skip
    assert code == 2
    assert error in lines[-1]
    assert not (corpus / "f.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "layer"),
    [("facebook/hubert-base-ls960", 9), ("a folder, layer by layer", "average"), ("of a program", None)],
)
def test_a_description_can_be_read_back(name, layer):
    assert named(describe(name, layer)) == (name, layer)
