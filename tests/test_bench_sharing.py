"""`speechtok bench` in several processes, with several manifests and with settings for its probes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from speechtok.audio import Audio, read, write
from speechtok.bench.facts import Facts
from speechtok.bench.ngrams import WittenBell
from speechtok.bench.scoring import child_environment
from speechtok.bench.suite import sharing
from speechtok.bench.suite.sharing import Model, Work
from speechtok.bench.suite.speech import Choice
from speechtok.bench.tasks import Options, Share, overrides_of
from speechtok.cli import main
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError
from speechtok.tokenizers.checkpoint import save_codec
from tiny import tiny_codec

pytest.importorskip("rapidfuzz", reason="edit distances need it; pip install 'speechtok[bench]'")

TASKS = ("reconstruction", "robustness", "codes", "sequence")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two tiny codecs on disk, and short recordings; one is broken, one is without text."""
    folder = tmp_path_factory.mktemp("sharing")
    for seed, name in enumerate("ab"):
        save_codec(tiny_codec("frame", seed), folder / name, {"scheme": "E"})
    rows = ["path\tsplit\tspeaker\ttext\temotion"]
    for i in range(8):
        samples = read(bundled_clips()[i % 3].path).samples[4000 * i :][:12000]
        write(folder / f"{i}.wav", Audio(samples, 16000))
        split = ("test", "train", "test", "dev")[i % 4]
        rows.append(f"{i}.wav\t{split}\tspeaker{i % 2}\tone two\t{'ab'[i // 4]}")
    (folder / "broken.wav").write_bytes(b"no audio")
    rows.append("broken.wav\ttest\tspeaker0\tten\ta")
    (folder / "data.tsv").write_text("\n".join(rows) + "\n")
    return folder


def words(place, out, *more, tasks=TASKS):
    models = [f"{name}={place / name}" for name in "ab"]
    head = ["bench", "--quick", "-o", str(out), "--data", str(place / "data.tsv"), "--models", *models]
    return [*head, "--judge", "none", "--voice", "none", "--tasks", *tasks, *more]


def bench(*arguments, **options):
    return main(words(*arguments, **options))


def summary_of(out):
    return json.loads((out / "summary.json").read_text())


def figures(document):
    """What two runs must agree on; the last bits depend on where in memory an array lies."""
    names = ("tokenizers", "summary", "differences", "not_applicable", "failures")
    text = json.dumps([document[name] for name in names])
    return json.loads(text, parse_float=lambda number: round(float(number), 9))


@pytest.fixture(scope="module")
def alone(place, tmp_path_factory):
    """One undisturbed run in one process, with the broken file."""
    out = tmp_path_factory.mktemp("alone") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 5)
        assert bench(place, out) == 0
    return out


# -- processes ------------------------------------------------------------------------------------------------------


def test_two_processes_give_the_summary_of_one(place, alone, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 5)
    measured = []
    add = Facts.add
    monkeypatch.setattr(Facts, "add", lambda self, item, found: (measured.append(item.name), add(self, item, found)))
    assert bench(place, tmp_path / "out", "--processes", "2") == 0
    assert figures(summary_of(tmp_path / "out")) == figures(summary_of(alone))
    assert "ended early" not in capfd.readouterr().out
    assert measured == []  # all was done when the concluding process began
    shares = {path.name.split(".")[1] for path in (tmp_path / "out" / "cache" / "codes").glob("*.*.jsonl")}
    assert shares == {"0", "1"}


def test_what_a_process_leaves_is_measured_by_the_first(place, alone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 5)
    monkeypatch.setattr(sharing, "_started", lambda work, share: subprocess.Popen(
        [sys.executable, "-c", "raise SystemExit(3)"], stdin=subprocess.PIPE))  # fmt: skip
    assert bench(place, tmp_path / "out", "--processes", "2") == 0
    assert "process 2 of 2 ended early" in capsys.readouterr().out
    assert figures(summary_of(tmp_path / "out")) == figures(summary_of(alone))


def test_an_interrupt_ends_the_processes(place, tmp_path, monkeypatch):
    started = []

    def sleeper(work, share):
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE))
        if share.number:
            raise KeyboardInterrupt
        return started[-1]

    monkeypatch.setattr(sharing, "_started", sleeper)
    begun = time.monotonic()
    assert bench(place, tmp_path / "out", "--processes", "2") == 130
    assert started[0].poll() is not None and time.monotonic() - begun < 30
    started[1].kill()


def test_a_process_ends_with_its_parent(place, tmp_path):
    work = Work([Model("a", str(place / "a"))], ["codes"], Choice(place / "data.tsv"), Options(), tmp_path)
    command = [sys.executable, "-m", "speechtok.bench.suite.sharing", "0", "1"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=child_environment())
    child.stdin.write(work.to_json().encode() + b"\n")
    child.stdin.close()  # as the end of the parent would
    assert child.wait(120) == 1


def test_the_work_survives_the_line(place):
    choice = Choice(place / "data.tsv", utterances=3, phones=None)
    options = Options(levels=(1, 2), probe=("steps=3",), judge=None)
    work = Work([Model("", "a")], ["codes"], choice, options, Path("out"), {"emotion": place / "data.tsv"})
    assert Work.from_json(work.to_json()) == work


def test_shares_are_the_whole():
    jobs = list(range(11))
    assert sorted(job for number in range(3) for job in Share(number, 3).take(jobs)) == jobs


# -- kills ----------------------------------------------------------------------------------------------------------


def test_two_kills_change_nothing(place, alone, tmp_path):
    """SIGKILL as soon as some facts are there, twice; then to the end."""
    script = "import sys; from speechtok.bench.suite import speech; speech.QUICK_ITEMS = 5\n"
    script += "from speechtok.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, *words(place, tmp_path / "out")]
    facts = tmp_path / "out" / "cache"
    kills = 0
    for needed in (2, 5):
        run = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL)
        while run.poll() is None and _facts_in(facts) < needed:
            time.sleep(0.01)
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.wait()
    assert kills == 2 and not (tmp_path / "out" / "summary.json").exists()
    assert subprocess.run(command, env=child_environment(), stdout=subprocess.DEVNULL).returncode == 0
    assert figures(summary_of(tmp_path / "out")) == figures(summary_of(alone))


def _facts_in(cache):
    return sum(path.read_bytes().count(b"\n") for path in cache.glob("*/*.0.jsonl"))


def test_a_broken_file_is_counted_and_moves_no_mean(place, alone, tmp_path, monkeypatch):
    monkeypatch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 5)
    lines = (place / "data.tsv").read_text().splitlines()
    sound = place / "sound.tsv"
    sound.write_text("\n".join(line for line in lines if "broken" not in line) + "\n")
    out = tmp_path / "out"
    assert main([str(sound) if word.endswith("data.tsv") else word for word in words(place, out)]) == 0
    with_broken, without = summary_of(alone)["summary"], summary_of(out)["summary"]
    assert len(with_broken) == len(without)
    for ours, theirs in zip(with_broken, without, strict=True):
        assert (ours["measure"], ours["role"]) == (theirs["measure"], theirs["role"])
        assert ours["failed"] == theirs["failed"] + 1, ours
        assert ours["n"] == theirs["n"]
        assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-9), ours


# -- manifests and settings -----------------------------------------------------------------------------------------


def test_a_task_can_have_a_manifest_and_settings_of_its_own(place, tmp_path):
    lines = (place / "data.tsv").read_text().splitlines()
    (place / "main.tsv").write_text("\n".join(line.rpartition("\t")[0] for line in lines) + "\n")
    more = ["--also", f"emotion={place / 'data.tsv'}", "--probe", "steps=2", "emotion.data.batch=2", "asr.steps=9"]
    more += ["--probe-levels", "1", "9"]
    command = [str(place / "main.tsv") if word.endswith("data.tsv") else word for word in words(place, tmp_path)]
    assert main([*command[: command.index("--tasks")], "--tasks", "emotion", *more]) == 0
    document = summary_of(tmp_path)
    rows = [row for row in document["summary"] if row["tokenizer"] == "a"]
    assert {row["steps"] for row in rows} == {2} and {row["role"] for row in rows} == {"first", "chance"}
    settings = document["settings"]
    assert settings["also"] == {"emotion": "data.tsv"} and settings["probe_levels"] == [1, 9]
    assert settings["probe"] == ["steps=2", "emotion.data.batch=2", "asr.steps=9"]
    assert "--also" in document["command"] and "--probe-levels 1 9" in document["command"]


def test_asr_and_mutual_information_share_their_probes(place, tmp_path):
    pytest.importorskip("jiwer", reason="error rates need it; pip install 'speechtok[bench]'")
    more = ["--probe-levels", "1", "--probe", "steps=2"]
    assert bench(place, tmp_path, *more, tasks=["asr", "mutual_information"]) == 0
    assert len(list((tmp_path / "cache" / "probes").iterdir())) == 2  # one of each tokenizer
    measured = {(row["tokenizer"], row["task"]) for row in summary_of(tmp_path)["summary"]}
    assert measured == {(name, task) for name in "ab" for task in ("asr", "mutual_information")}


def test_settings_of_one_task_are_for_it_alone():
    options = Options(probe=("steps=2", "asr.steps=9", "data.batch=4"))
    assert overrides_of("asr", options) == ["steps=2", "steps=9", "data.batch=4"]
    assert overrides_of("emotion", options) == ["steps=2", "data.batch=4"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--also", "codes=x.tsv"], "only tasks that train"),
        (["--also", "emotion"], "write TASK=MANIFEST"),
        (["--also", "emotion=absent.tsv"], "absent.tsv"),
        (["--probe-levels", "none"], "write numbers of levels"),
        (["--processes", "0"], "at least 1"),
    ],
)
def test_wrong_options_are_one_line(place, tmp_path, more, message, capsys):
    assert bench(place, tmp_path / "out", *more) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("setting", "tasks", "message"),
    [
        ("stesp=2", ["codes", "asr"], "stesp"),
        ("asr.steps=many", ["codes", "asr"], "steps"),
        ("steps=2", ["codes"], "no task that trains is among --tasks"),
    ],
)
def test_wrong_probe_settings_are_refused_before_any_work(place, tmp_path, capsys, setting, tasks, message):
    assert bench(place, tmp_path / "out", "--probe", setting, tasks=tasks) == 2
    said = capsys.readouterr()
    assert message in said.err.strip().splitlines()[-1] and "codes" not in said.out


# -- sequences ------------------------------------------------------------------------------------------------------


def brute_force(sequences, size, order, sequence):
    """log2 p by the formula, one count at a time."""
    padded = [[size] * (order - 1) + list(one) for one in sequences]

    def p(code, history, length):
        if length < 0:
            return 1 / size
        follow = [one[i] for one in padded for i in range(order - 1, len(one)) if one[i - length : i] == list(history)]
        lower = p(code, history[1:], length - 1)
        return (follow.count(code) + len(set(follow)) * lower) / (len(follow) + len(set(follow))) if follow else lower

    row = [size] * (order - 1) + list(sequence)
    return [np.log2(p(row[i], row[i - order + 1 : i], order - 1)) for i in range(order - 1, len(row))]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_language_model_is_witten_bells_formula(order):
    random = np.random.default_rng(order)
    sequences = [random.integers(0, 6, count) for count in (9, 1, 14)]
    tested = random.integers(0, 7, 12)
    found = WittenBell(sequences, 7, order).log2_probabilities(tested)
    assert found == pytest.approx(brute_force(sequences, 7, order, tested))


def test_probabilities_of_all_codes_are_one():
    random = np.random.default_rng(0)
    model = WittenBell([random.integers(0, 5, 30)], 6)
    for start in ([], [3], [1, 2], [5, 5]):
        last = [model.log2_probabilities(np.array([*start, code]))[-1] for code in range(6)]
        assert np.exp2(last).sum() == pytest.approx(1)


def test_a_model_needs_something_to_learn():
    with pytest.raises(ConfigError, match="nothing to learn"):
        WittenBell([], 4)
    with pytest.raises(ConfigError, match="63 bits"):
        WittenBell([np.array([1])], 2**30)


def test_sequences_are_measured_on_the_level_of_their_name(alone):
    rows = {row["measure"]: row for row in summary_of(alone)["summary"]
            if (row["task"], row["tokenizer"]) == ("sequence", "a")}  # fmt: skip
    bits, raised = rows["lm_bits_per_token"], rows["lm_perplexity"]
    assert raised["mean"] == pytest.approx(2 ** bits["mean"]) and bits["failed"] == 1 and bits["n"] == 4
    assert bits["mean"] > 0 and bits["trained_on"] == 2
    assert rows["lm_bits_per_second"]["mean"] == pytest.approx(bits["mean"] * 200, rel=0.01)
    merged = rows["bpe_tokens_per_second"]["mean"]
    assert merged * rows["bpe_compression"]["mean"] == pytest.approx(200, rel=0.01) and merged <= 200
