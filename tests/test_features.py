"""``speechtok features``: the store belongs to the trainer's speech, and interruptions leave nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
import torch

from speechtok.errors import ConfigError
from speechtok.guidance import extraction
from speechtok.guidance.clusters import fit_centres
from speechtok.guidance.naming import describe, named
from speechtok.guidance.store import FeatureStore
from speechtok.guidance.targets import weights_digest
from speechtok.guidance.teachers import load_semantic_teacher
from speechtok.processes import ONE_THREAD, child_environment
from speechtok.train.data import WaveStore, pooled
from speechtok.train.features import FeatureJob, extract_features
from speechtok.train.units import UnitsRecipe, mixed_vectors
from tiny_features import extract_store
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
def test_an_interrupted_extraction(corpus, hubert, waves, changed, kept):
    teacher = load_semantic_teacher(hubert, 1)
    with pytest.raises(KeyboardInterrupt):
        extract_store(corpus / "f.safetensors", Failing(teacher, 2), "t, layer 1", waves, waves.lengths, size=1)
    assert not (corpus / "f.safetensors").exists()
    assert len(list((corpus / "f.safetensors.parts").glob("*.safetensors"))) == 2
    rest, done = Failing(teacher, 9), []
    arguments = (rest, changed, waves, waves.lengths)
    assert extract_store(corpus / "f.safetensors", *arguments, done=done.append, size=1) == kept
    assert (rest.heard, done) == (3 - kept, [*range(kept, 3)])
    assert not (corpus / "f.safetensors.parts").exists()
    extract_store(corpus / "straight.safetensors", Failing(teacher, 9), changed, waves, waves.lengths)
    assert (corpus / "f.safetensors").read_bytes() == (corpus / "straight.safetensors").read_bytes()


def test_two_that_share_an_extraction_write_one_store(corpus, hubert, waves, monkeypatch):
    monkeypatch.setattr(extraction, "WAIT", 0.01)
    arguments = (load_semantic_teacher(hubert, 1), "t", waves, waves.lengths)
    extract_store(corpus / "straight.safetensors", *arguments)
    with ThreadPoolExecutor(3) as pool:
        shared = [pool.submit(extract_store, corpus / "f.safetensors", *arguments, size=1) for _ in range(3)]
    assert all(one.exception() is None for one in shared)
    assert (corpus / "f.safetensors").read_bytes() == (corpus / "straight.safetensors").read_bytes()
    assert not (corpus / "f.safetensors.parts").exists()


def job_of(corpus, hubert, output: str) -> FeatureJob:
    """Parts of one utterance each."""
    manifests, cache = (str(corpus / "corpus.tsv"),) * 3, str(corpus / "cache")
    return FeatureJob(manifests, str(corpus / output), str(hubert), 1, cache=cache, shard_size=1)


def test_a_killed_extraction_goes_on_with_several_workers_and_gives_the_same_bytes(corpus, hubert):
    straight, disturbed = job_of(corpus, hubert, "straight.safetensors"), job_of(corpus, hubert, "f.safetensors")
    assert extract_features(straight, workers=1, tell=lambda event: None).kept == 0
    command = [sys.executable, "-m", "speechtok.train.features", json.dumps(asdict(disturbed))]
    environment = child_environment() | ONE_THREAD
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as worker:
        for _ in range(3):
            json.loads(worker.stdout.readline())
        worker.kill()
    events = []
    found = extract_features(disturbed, workers=2, tell=events.append)
    assert 2 <= found.kept < found.utterances == 9
    told = {event["id"] for event in events if event["event"] == "recording"}
    assert told <= {str(corpus / f"{i}.wav") for i in range(3)} and {event["worker"] for event in events} <= {0, 1}
    assert (corpus / "f.safetensors").read_bytes() == (corpus / "straight.safetensors").read_bytes()
    assert not (corpus / "f.safetensors.parts").exists()


def test_centres_of_a_store_made_in_parts_are_those_of_features_in_memory(corpus, hubert, waves):
    pytest.importorskip("sklearn", reason="pip install 'speechtok[units]'")
    extract_features(job_of(corpus, hubert, "f.safetensors"), workers=1, tell=lambda event: None)
    store = FeatureStore(corpus / "f.safetensors")
    recipe = UnitsRecipe(features=str(store.path), clusters=4, batch=16, passes=2)
    teacher = load_semantic_teacher(hubert, 1)
    held = [teacher(torch.from_numpy(wave)[None])[0][0].half() for wave in [*waves] * 3]
    streamed, at_once = (fit_centres(mixed_vectors(one, recipe), 4) for one in (store, held))
    assert torch.allclose(streamed, at_once, atol=1e-3)


class Breaking(list):
    """Waves of which the third cannot be had."""

    def __getitem__(self, index):
        if index == 2:
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_parts_of_a_teacher_that_was_trained_again_are_made_anew(corpus, hubert, waves):
    for changed, kept in ((False, 2), (True, 0)):
        teacher = load_semantic_teacher(hubert, 1)
        with pytest.raises(KeyboardInterrupt):
            extract_store(corpus / "f.safetensors", teacher, "t", Breaking(waves), waves.lengths, size=1)
        if changed:
            next(teacher.parameters()).add_(1)
        assert extract_store(corpus / "f.safetensors", teacher, "t", waves, waves.lengths, size=1) == kept
        assert FeatureStore(corpus / "f.safetensors").weights == weights_digest(teacher)


def test_parts_of_other_speech_are_made_anew(corpus, hubert, waves):
    teacher = load_semantic_teacher(hubert, 1)
    with pytest.raises(KeyboardInterrupt):
        extract_store(corpus / "f.safetensors", Failing(teacher, 2), "t", waves, waves.lengths, size=1)
    others = [wave[:4000] for wave in waves]
    assert extract_store(corpus / "f.safetensors", teacher, "t", others, [4000] * 3, size=1) == 0
    FeatureStore(corpus / "f.safetensors").check([4000] * 3, 16000)


def test_features_that_are_not_finite_are_refused(corpus, hubert, waves):
    teacher = load_semantic_teacher(hubert, 1)
    broken = [wave.copy() for wave in waves]
    broken[1][100] = float("nan")
    with pytest.raises(ConfigError, match="utterance 1: its features are not finite"):
        extract_store(corpus / "f.safetensors", teacher, "t", broken, waves.lengths)
    assert not (corpus / "f.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        pytest.param(["--split", "eval"], "no row has split 'eval'", id="split"),
        pytest.param(["--layer", "7"], "layer is 7; give 0 to 2", id="layer"),
        pytest.param(["--workers", "0"], "--workers is 0", id="workers"),
        pytest.param(["--shard-size", "0"], "--shard-size is 0", id="shard-size"),
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
