"""A corpus of tokens: the same bytes however often it was killed, by however many, and one line for every refusal."""

import json
import os
import signal as signals
from dataclasses import replace

import numpy as np
import pytest

import speechtok
from speechtok.corpus.finishing import missing_shards
from speechtok.corpus.plan import Cut, Plan
from speechtok.corpus.progress import Progress
from speechtok.corpus.run import tokenize
from speechtok.corpus.worker import loaded
from speechtok.errors import ConfigError, TokenFileError
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.features import MelFeatures
from speechtok.tokenizers.recognisers import Transcript
from speechtok.tokenizers.soft import SoftTokenizer
from tiny import HOP, RATE, signal, tiny_tokenizer
from tiny_corpus import make_sounds, order, run, start, tree

pytest.importorskip("pyarrow", reason="pip install 'speechtok[corpus]'")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return make_sounds(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def finished(sounds, model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "undisturbed"
    run(sounds, folder, model)
    return folder


def test_a_folder_becomes_shards_with_the_codes_of_encode(sounds, model, finished):
    corpus = speechtok.open(finished)
    files = sorted(path.relative_to(sounds) for path in sounds.rglob("*.wav") if "broken" not in path.name)
    assert corpus.ids == tuple(path.with_suffix("").as_posix() for path in files)
    for name, path in zip(corpus.ids, files, strict=True):
        assert corpus[name] == model.encode(speechtok.read(sounds / path))
    assert corpus.fingerprint == model.fingerprint
    assert len(corpus.shards) == 4 and sorted(path.name for path in finished.iterdir()) == [
        "failures.jsonl", "manifest.json", "plan.json", "recordings", "shards",
    ]  # fmt: skip


def test_a_bad_file_is_named_and_the_others_go_on(sounds, finished):
    (line,) = (finished / "failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert failure["id"] == "a/broken" and failure["shard"] == "00001"
    assert str(sounds / "a/broken.wav") in failure["reason"]
    manifest = json.loads((finished / "manifest.json").read_text())
    assert (manifest["rows"], manifest["failures"]) == (10, 1)


def test_a_second_run_writes_nothing(sounds, model, finished):
    before = {path: os.stat(path).st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    run(sounds, finished, model)
    assert before == {path: os.stat(path).st_mtime_ns for path in finished.rglob("*") if path.is_file()}


def test_only_what_is_missing_or_damaged_is_made(sounds, model, finished, tmp_path):
    folder = tmp_path / "again"
    run(sounds, folder, model)
    (folder / "shards/00001.parquet").unlink()
    (folder / "shards/00002.parquet").write_bytes(b"PAR1 and no more")
    (folder / "shards/00099.parquet").write_bytes(b"of nobody")
    (folder / "manifest.json").unlink()
    made = []
    told = lambda event: made.append(event.get("shard")) if event["event"] == "shard" else None  # noqa: E731
    tokenize(order(sounds, folder), told, lambda *_, **__: model)
    assert made == ["00001", "00002"]
    assert tree(folder) == tree(finished)


def test_an_interrupted_run_goes_on(sounds, model, finished, tmp_path):
    folder, seen = tmp_path / "interrupted", []

    def interrupt(event):
        seen.append(event)
        if len(seen) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize(order(sounds, folder), interrupt, lambda *_, **__: model)
    with pytest.raises(TokenFileError, match="no finished corpus"):
        speechtok.open(folder)
    run(sounds, folder, model)
    assert tree(folder) == tree(finished)


def test_killed_runs_with_several_workers_leave_the_same_bytes(sounds, folder, tmp_path):
    """Two runs at once on one folder: of one the whole group is killed, of the other the parent alone."""
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    tokenize(order(sounds, undisturbed, folder, size=2), lambda event: None)
    one, two = (start(sounds, disturbed, folder, "--workers", workers) for workers in (1, 2))
    for _ in range(3):
        one.stdout.readline()
    os.killpg(one.pid, signals.SIGKILL)
    two.stdout.readline()
    os.kill(two.pid, signals.SIGKILL)
    for process in (one, two):
        process.communicate()
    process = start(sounds, disturbed, folder, "--workers", 1)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err == "", err  # one recording is broken
    assert json.loads(out.splitlines()[-1])["rows"] == 10
    assert tree(disturbed) == tree(undisturbed)


def test_a_changed_model_level_count_or_batch_is_refused(sounds, model, finished):
    with pytest.raises(ConfigError, match=r"made by tiny-frame \(\w+\), not by tiny-frame \(\w+\); give --update redo"):
        run(sounds, finished, tiny_tokenizer("frame", seed=1))
    with pytest.raises(ConfigError, match="was made with levels None, not 2"):
        run(sounds, finished, model, levels=2)
    with pytest.raises(ConfigError, match="was made with batch 1, not 4"):
        run(sounds, finished, model, batch=4)


@pytest.fixture
def changed(tmp_path, model):
    """A finished corpus of a source in which one file is new, one has changed and one is gone."""
    sounds, folder = make_sounds(tmp_path / "sounds", 6, bad=False), tmp_path / "corpus"
    run(sounds, folder, model, size=2)
    speechtok.write(sounds / "c.wav", signal(0.3, seed=50))
    speechtok.write(sounds / "a/00.wav", signal(0.4, seed=51))
    (sounds / "b/05.wav").unlink()
    return sounds, folder


def test_a_changed_source_is_refused(changed, model):
    with pytest.raises(ConfigError, match="1 new, 1 changed and 1 vanished recordings, such as 'a/00'; give --update"):
        run(*changed, model, size=2)


def test_extend_adds_what_is_new_and_leaves_the_rest(changed, model):
    sounds, folder = changed
    before = tree(folder / "shards")
    old = speechtok.open(folder)["a/00"]
    run(sounds, folder, model, size=2, update="extend")
    corpus, after = speechtok.open(folder), tree(folder / "shards")
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 1
    assert corpus["a/00"] == old and "b/05" in corpus and "c" in corpus
    run(sounds, folder, model, size=2)
    assert tree(folder / "shards") == after


def test_a_run_whose_plan_was_replaced_leaves_the_new_plans_files_alone(changed, model):
    sounds, folder = changed
    old = Plan.load(folder)
    run(sounds, folder, model, size=2, update="extend")
    after = tree(folder)
    with pytest.raises(ConfigError, match="another run gave it a new plan meanwhile"):
        missing_shards(folder, old)
    assert tree(folder) == after


def test_sync_follows_the_source(changed, model):
    sounds, folder = changed
    before = tree(folder / "shards")
    run(sounds, folder, model, size=2, update="sync")
    corpus, after = speechtok.open(folder), tree(folder / "shards")
    assert corpus["a/00"] == model.encode(speechtok.read(sounds / "a/00.wav"))
    assert set(corpus) == {"a/00", "a/02", "a/04", "b/01", "b/03", "c"}
    assert after["00001.parquet"] == before["00001.parquet"] and after["00000.parquet"] != before["00000.parquet"]


def test_redo_makes_everything_again(changed, model):
    sounds, folder = changed
    other = tiny_tokenizer("frame", seed=1)
    run(sounds, folder, other, size=4, levels=2, update="redo")
    corpus = speechtok.open(folder)
    assert corpus.fingerprint == other.fingerprint and len(corpus.shards) == 2 and len(corpus) == 6
    assert all(tokens.levels == 2 for tokens in corpus.values())


def test_padded_batches_are_a_setting_of_the_plan(sounds, model, tmp_path):
    run(sounds, tmp_path / "one", model, batch=4)
    run(sounds, tmp_path / "two", model, batch=4)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    one, exact = speechtok.open(tmp_path / "one"), model.encode(speechtok.read(sounds / "a/00.wav"))
    assert one["a/00"].codes.shape == exact.codes.shape
    assert np.mean(one["a/00"].codes != exact.codes) < 0.05


def test_shards_end_by_seconds_too(sounds, model, tmp_path):
    cut = replace(order(sounds, tmp_path / "corpus"), cut=Cut(100, 1.0))
    tokenize(cut, lambda event: None, lambda *_, **__: model)
    corpus = speechtok.open(tmp_path / "corpus")
    lengths = [sum(corpus[name].seconds for name in shard.ids if name in corpus) for shard in corpus.plan.shards]
    assert len(lengths) > 2 and max(lengths) <= 1.0


class Speller(Tokenizer):
    """Text tokens whose words are the length of the recording."""

    value, scheme, name, sample_rate, codebook_sizes, semantic_levels = TextTokens, "D", "speller", RATE, (), ()
    fingerprint = "speller"

    def checked_levels(self, levels):
        return 0

    def _encode(self, samples, levels):
        return Transcript(str(len(samples)), np.array([[0, len(samples)]]))

    def _decode(self, codes, first_level):
        raise NotImplementedError

    def _tokens(self, codes, num_samples):
        ids = np.array([int(digit) for digit in codes.text])
        return TextTokens(ids, codes.text, 10, RATE, num_samples, self.name, self.fingerprint, codes.times)


def test_text_tokens_and_soft_tokens_have_columns_of_their_own(sounds, tmp_path):
    soft = SoftTokenizer(MelFeatures(RATE, 160, HOP, 20), "tiny-mel")
    for tokenizer in (Speller(), soft):
        folder = tmp_path / tokenizer.name
        run(sounds, folder, tokenizer)
        corpus = speechtok.open(folder)
        for name, tokens in corpus.items():
            assert tokens == tokenizer.encode(speechtok.read(sounds / f"{name}.wav"))


def test_a_timbre_is_kept(sounds, tmp_path):
    tokenizer = tiny_tokenizer("frame-timbre")
    run(sounds, tmp_path, tokenizer)
    tokens = speechtok.open(tmp_path)["a/00"]
    assert tokens.timbre is not None and tokens == tokenizer.encode(speechtok.read(sounds / "a/00.wav"))


def test_the_command(sounds, cli, tmp_path):
    code, out, err = cli("tokenize", sounds, "-o", tmp_path / "corpus", "--workers", 1, "--shard-size", 4)
    assert code == 2 and "10 recordings, 0.00 h, in 3 shards" in out and "1 recordings failed" in out
    assert len(err) == 1 and err[0].startswith("speechtok: error: ") and "broken.wav" in err[0]
    code, out, err = cli("tokenize", sounds, "-o", tmp_path / "corpus", "--workers", 1, "--json")
    assert json.loads(out)["event"] == "end" and not err


@pytest.mark.parametrize(
    "options, message",
    [
        (("--workers", 0), "--workers is 0"),
        (("--shard-size", 0), "--shard-size is 0"),
        (("--shard-seconds", 0), "--shard-seconds is 0"),
        (("--batch", 0), "--batch is 0"),
        (("--levels", 9), "has 4 levels"),
        (("--num-gpus", 1), "give it with --ray"),
        (("--split", "dev"), "a folder has no splits"),
    ],
)
def test_wrong_options_are_refused_in_one_line(sounds, cli, tmp_path, options, message):
    code, _, (line,) = cli("tokenize", sounds, "-o", tmp_path / "corpus", *options)
    assert code == 2 and message in line
    assert not (tmp_path / "corpus").exists()


def test_a_worker_with_another_model_says_so(folder, model):
    assert loaded(str(folder), "cpu", "fp32", model.fingerprint).fingerprint == model.fingerprint
    with pytest.raises(ConfigError, match=r"is \w+ here and other in the plan"):
        loaded(str(folder), "cpu", "fp32", "other")


def test_a_foreign_plan_is_refused(sounds, model, tmp_path):
    (tmp_path / "plan.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(TokenFileError, match="is no plan of a corpus"):
        run(sounds, tmp_path, model)
    (tmp_path / "plan.json").write_text('{"format": "speechtok.corpus", "version": 9}')
    with pytest.raises(TokenFileError, match="version 9, this release reads 1"):
        Plan.load(tmp_path)


def test_progress_in_lines_where_nobody_sees_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("speechtok.corpus.progress.EVERY", 0.0)
    progress = Progress(20, 5)
    for i in range(8):
        progress({"event": "recording", "id": str(i), "seconds": 360.0, "notes": []})
    for i in range(7):
        progress({"event": "recording", "id": str(i), "seconds": 0.0, "failure": f"{i}.wav: broken"})
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert "13 of 25 recordings, 0.80 h done" in lines[7] and "left" in lines[7]
    assert sum("broken" in line for line in lines) == 5 and lines[-1] == "speechtok: error: 2 more"


def test_a_long_file_is_left_to_the_tokenizer(sounds, model, finished, tmp_path, monkeypatch):
    monkeypatch.setattr("speechtok.corpus.reading.LONG", 0.3)
    encoded, encode_file = [], type(model).encode_file
    counted = lambda self, path, k: encoded.append(path) or encode_file(self, path, k)  # noqa: E731
    monkeypatch.setattr(type(model), "encode_file", counted)
    run(sounds, tmp_path / "corpus", model)
    assert len(encoded) == 6
    assert tree(tmp_path / "corpus") == tree(finished)
