"""A study in miniature: trained variants, facts that are measured once, failures that count, rows that add up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import ROOT
from speechtok.audio import Audio, read, write
from speechtok.bench import ablation, comparison, facts, tables
from speechtok.bench.ablation import Study, run_study
from speechtok.bench.facts import ORIGINAL, UNREADABLE, Evaluation, Facts, choose_items, measure_models
from speechtok.bench.judge import error_scores
from speechtok.bench.phonetics import joint_counts, phonetic_scores
from speechtok.clips import bundled_clips
from speechtok.config import from_yaml
from speechtok.errors import ConfigError, TrainingError
from speechtok.guidance.phones import Segment, write_segments
from speechtok.tokenizers.checkpoint import save_codec
from speechtok.train.recipe import CodecRecipe
from tiny import tiny_codec

WORDS = ("one two three four", "five six seven", "eight nine")


class FakeJudge:
    """Hears as many words as the signal has half seconds louder than a threshold; counts how often it is asked."""

    name, asked = "fake", 0

    def transcribe(self, audio):
        type(self).asked += 1
        power = np.array([float(np.mean(part**2)) for part in np.array_split(audio.samples, 4)])
        return " ".join(["one", "two", "three", "four"][: int((power > 1e-4).sum())])


class FakeVoice:
    """The means of four parts of the spectrum."""

    name = "fake"

    def embed(self, audio):
        parts = np.array([part.mean() for part in np.array_split(np.abs(np.fft.rfft(audio.samples)), 4)])
        return parts / np.linalg.norm(parts)


@pytest.fixture(autouse=True)
def quick_tools(monkeypatch):
    FakeJudge.asked = 0
    monkeypatch.setattr(facts, "load_judge", lambda name: FakeJudge())
    monkeypatch.setattr(facts, "load_encoder", lambda name: FakeVoice())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Excerpts of bundled clips with texts and phones, and two tiny codecs."""
    folder = tmp_path_factory.mktemp("bench")
    rows, segments = ["path\tsplit\tspeaker\ttext"], {}
    for i, text in enumerate(WORDS):
        clip = read(bundled_clips()[i].path).samples[:16000]
        write(folder / f"{i}.wav", Audio(clip, 16000))
        rows.append(f"{i}.wav\tdev\tspeaker{i % 2}\t{text}")
        segments[str(i)] = [Segment(0.0, 0.3, "AA"), Segment(0.3, 0.7, "S"), Segment(0.7, 1.0, "SIL")]
    (folder / "data.tsv").write_text("\n".join(rows) + "\n")
    write_segments(folder / "phones.tsv", segments)
    for name, seed in (("a", 0), ("b", 1)):
        save_codec(tiny_codec("frame", seed), folder / name, {"scheme": "E"})
    return folder


def study_of(bench: Path, **evaluation) -> Study:
    settings = {"data": str(bench / "data.tsv"), "phones": str(bench / "phones.tsv"), "judge": "fake", "voice": "fake"}
    models = {name: str(bench / name) for name in ("a", "b")}
    return Study(models=models, reference="a", evaluation=Evaluation(**(settings | evaluation)))


def row_of(rows, tokenizer, measure, role):
    (row,) = (r for r in rows if (r["tokenizer"], r["measure"], r["role"]) == (tokenizer, measure, role))
    return row


@pytest.fixture(scope="module")
def finished(bench, tmp_path_factory):
    """The study of the two codecs, once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "load_judge", lambda name: FakeJudge())
        patch.setattr(facts, "load_encoder", lambda name: FakeVoice())
        folder = tmp_path_factory.mktemp("study")
        return folder, run_study(study_of(bench), folder)


# -- figures --------------------------------------------------------------------------------------------------------


def test_every_figure_stands_beside_its_difference(finished):
    _, rows = finished
    for measure in ("pesq_wb", "stoi", "mel_distance", "wer", "cer", "voice_cosine"):
        for role in ("first", "all"):
            theirs, ours = (row_of(rows, name, measure, role) for name in "ab")
            assert theirs["difference"] is None
            assert ours["n"] + ours["failed"] == 3
            if ours["n"] == theirs["n"] == 3:
                assert ours["difference"]["mean"] == pytest.approx(ours["mean"] - theirs["mean"])
    assert row_of(rows, ORIGINAL, "wer", ORIGINAL)["n"] == 3
    assert {row["levels"] for row in rows if row["role"] == "all"} == {4}


def test_error_rates_are_those_of_the_corpus(finished, bench):
    _, rows = finished
    heard = [FakeJudge().transcribe(read(bench / f"{i}.wav")) for i in range(3)]
    scores = [error_scores(text, said)[0] for text, said in zip(WORDS, heard, strict=True)]
    wrong = sum(one.value * one.weight for one in scores)
    assert row_of(rows, ORIGINAL, "wer", ORIGINAL)["mean"] == pytest.approx(wrong / 9)


def test_phones_are_measured_on_level_one(finished, bench):
    import speechtok

    _, rows = finished
    codes = np.concatenate([speechtok.load(bench / "b").encode(read(bench / f"{i}.wav")).codes[0] for i in range(3)])
    labels = (["AA"] * 60 + ["S"] * 80 + ["SIL"] * 60) * 3
    expected = phonetic_scores(joint_counts(labels, codes))
    assert row_of(rows, "b", "pnmi", "first")["mean"] == pytest.approx(expected.pnmi)
    assert row_of(rows, "b", "phone_purity", "first")["mean"] == pytest.approx(expected.phone_purity)


def test_what_is_written_agrees(finished):
    folder, rows = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["summary"] == json.loads(json.dumps(rows)) and summary["n"] == 3
    by_item = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    values = [r["value"] for r in by_item if (r["tokenizer"], r["measure"], r["levels"]) == ("b", "mel_distance", 4)]
    assert np.mean(values) == pytest.approx(row_of(rows, "b", "mel_distance", "all")["mean"])
    text = (folder / "summary.md").read_text()
    assert "| PNMI, first level ↑ |" in text and "Difference from `a`" in text
    assert (folder / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_bold_marks_differences_that_exclude_zero():
    rows = [
        {"tokenizer": name, "measure": "wer", "role": "all", "mean": 0.5, "low": 0.4, "high": 0.6, "n": 9, "failed": 0}
        | {"difference": difference}
        for name, difference in (
            ("none", None),
            ("worse", {"mean": 0.2, "low": 0.1, "high": 0.3, "failed": 0}),
            ("alike", {"mean": 0.1, "low": -0.1, "high": 0.3, "failed": 0}),
        )
    ]
    last = tables.markdown(rows, "none").splitlines()[-1]
    assert last == "| WER, all levels ↓ | **0.200 [0.100, 0.300]** | 0.100 [-0.100, 0.300] |"
    assert "Difference" not in tables.markdown(rows[:1], "none")
    (about,) = (line for line in tables.markdown(rows, "none").splitlines() if line.startswith("Difference"))
    assert "one seed" in about and "not corrected for the 2 comparisons" in about


def test_what_only_one_side_has_is_counted_in_a_difference_of_phones():
    def measured(name, items):
        phones = {item: (["AA", "S"], np.array([0, 1])) for item in items}
        return comparison.Measured(name, name, (1,), {}, phones, Counter())

    rows = comparison.compare([measured("a", "12345"), measured("b", "3456")], "a")
    for measure in comparison.PHONETIC:
        difference = row_of(rows, "b", measure, "first")["difference"]
        assert (difference["n"], difference["failed"]) == (3, 3)
        assert difference["reasons"] == {"one side was not measured": 3}
    whole = comparison.compare([measured("a", "123"), measured("b", "123")], "a")
    assert [row["difference"]["failed"] for row in whole if row["difference"]] == [0, 0]


# -- facts ----------------------------------------------------------------------------------------------------------


def test_a_second_run_measures_nothing_and_a_third_only_what_is_missing(finished, bench, tmp_path):
    study, folder = study_of(bench), tmp_path
    first = run_study(study, folder)
    asked = FakeJudge.asked
    assert asked == 3 + 2 * 3 * 2
    assert run_study(study, folder) == first and FakeJudge.asked == asked
    (path,) = (folder / "cache").glob(f"{row_of(first, 'b', 'wer', 'all')['fingerprint']}.*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    assert sum('"heard' in line for line in lines) == 6
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # what a kill leaves
    assert run_study(study, folder) == first
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert FakeJudge.asked <= asked + 1


def test_a_broken_file_is_counted_and_changes_no_mean(finished, bench, tmp_path):
    _, clean = finished
    for path in bench.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    with (tmp_path / "data.tsv").open("a") as file:
        file.write("broken.wav\tdev\tspeaker0\tsome words\n")
    study = study_of(bench, data=str(tmp_path / "data.tsv"))
    spoilt = run_study(study, tmp_path / "study")
    assert len(spoilt) == len(clean)
    for before, after in zip(clean, spoilt, strict=True):
        assert after["failed"] == before["failed"] + 1 and after["reasons"][UNREADABLE] == 1
        kept = ("tokenizer", "measure", "role", "mean", "low", "high", "n")
        assert {k: after[k] for k in kept} == {k: before[k] for k in kept}


def test_no_text_and_no_alignment_are_counted(bench, tmp_path):
    (bench / "untold.tsv").write_text("path\tsplit\tspeaker\ttext\n0.wav\tdev\ts\tone\n1.wav\tdev\ts\t\n")
    write_segments(tmp_path / "phones.tsv", {"0": [Segment(0.0, 1.0, "AA")]})
    study = study_of(bench, data=str(bench / "untold.tsv"), phones=str(tmp_path / "phones.tsv"))
    rows = run_study(study, tmp_path)
    assert row_of(rows, ORIGINAL, "wer", ORIGINAL)["reasons"] == {"no reference text": 1}
    assert row_of(rows, "a", "pnmi", "first")["reasons"] == {"no alignment": 1}


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        pytest.param({"judge": None}, {"wer", "cer"}, id="judge"),
        pytest.param({"voice": None}, {"voice_cosine"}, id="voice"),
        pytest.param({"phones": None}, {"pnmi", "phone_purity"}, id="phones"),
    ],
)
def test_a_tool_can_be_left_out(finished, bench, tmp_path, settings, gone):
    _, rows = finished
    less = run_study(study_of(bench, utterances=1, **settings), tmp_path)
    assert {row["measure"] for row in rows} - {row["measure"] for row in less} == gone


def test_processes_find_the_same_facts(bench, tmp_path):
    study = study_of(bench, judge=None, voice=None, processes=2)
    items = choose_items(study.evaluation)
    for processes in (1, 2):
        study.evaluation.processes = processes
        measure_models([None, bench / "a"], study.evaluation, tmp_path / str(processes))
    fingerprint = next((tmp_path / "2").glob("*.0.jsonl")).name.split(".")[0]
    assert len(list((tmp_path / "2").glob(f"{fingerprint}.*.jsonl"))) == 2
    here, there = (Facts(tmp_path / str(processes), fingerprint) for processes in (1, 2))
    for item in items:
        assert here[item, "codes@1"] == there[item, "codes@1"]
        assert here[item, "mel_distance@4"].value == pytest.approx(there[item, "mel_distance@4"].value, rel=1e-9)


def test_utterances_are_spread_over_speakers(tmp_path):
    rows = ["path\tsplit\tspeaker\ttext"]
    for i in range(9):
        write(tmp_path / f"{i}.wav", Audio(np.full(8000 * (3 if i == 8 else 1), 0.1, np.float32), 8000))
        rows.append(f"{i}.wav\tdev\t{'abbbbbbcc'[i]}\tx")
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    evaluation = Evaluation(data=str(tmp_path / "data.tsv"), utterances=5, longest=2.0)
    assert [item.name for item in choose_items(evaluation)] == ["0", "1", "3", "6", "7"]
    with pytest.raises(ConfigError, match="within"):
        choose_items(Evaluation(data=str(tmp_path / "data.tsv"), longest=0.5))


# -- training -------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipe(corpus):
    """A recipe of a codec that trains in no time, in a file."""
    settings = {
        "steps": 2, "log_every": 1, "validate_every": 2, "checkpoint_every": 1,
        "data": {"manifests": [f"{corpus}/corpus.tsv"], "cache": f"{corpus}/cache", "seconds": 0.2, "batch": 2},
        "codec": {
            "backbone": "frame", "dimension": 8, "semantic_dimension": 8, "codebook_size": 16, "n_q": 2,
            "frame": {"width": 16, "encoder_blocks": 1, "decoder_blocks": 1, "expansion": 2},
        },
        "weights": {"adversarial": 0.0},
    }  # fmt: skip
    path = corpus / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_a_study_trains_resumes_and_tells_what_failed(recipe, corpus, tmp_path, monkeypatch):
    evaluation = Evaluation(data=str(corpus / "corpus.tsv"), judge=None, voice=None)
    variants = {"none": [], "other": ["seed=7"], "wrong": ["no_such_setting=1"]}
    study = Study(str(recipe), ["log_every=2"], variants, evaluation=evaluation)
    folder = tmp_path / "study"
    with pytest.raises(TrainingError, match="not trained: wrong"):
        run_study(study, folder)
    rows = json.loads((folder / "summary.json").read_text())["summary"]
    assert {row["tokenizer"] for row in rows} == {"none", "other"}
    assert len({row["fingerprint"] for row in rows}) == 2
    assert row_of(rows, "other", "mel_distance", "all")["difference"]["n"] == 1
    assert json.loads((folder / "variants/other/recipe.json").read_text())["seed"] == 7

    def forbidden(*_, **__):
        raise AssertionError("nothing was left to train")

    monkeypatch.setattr("speechtok.bench.variants.subprocess.run", forbidden)
    assert run_study(study, folder, only=["none"]) == rows  # what was measured before stays in the summary
    study.variants["other"] = ["seed=8"]
    with pytest.raises(AssertionError, match="nothing was left"):
        run_study(study, folder, only=["other"])


def test_the_trial_run_has_a_folder_and_settings_of_its_own(bench, tmp_path, monkeypatch, capsys):
    trained = []
    monkeypatch.setattr(ablation, "train_variant", lambda study, name, folder: trained.append((study, folder)) or False)
    path = tmp_path / "study.yaml"
    settings = {
        "recipe": "r.yaml", "overrides": ["steps=9"], "variants": {"none": []}, "models": {"a": str(bench / "a")},
        "quick": ["steps=1"], "evaluation": {"data": str(bench / "data.tsv"), "judge": None, "voice": None},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings))
    (tmp_path / "r.yaml").write_text("steps: 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="none"):
        ablation.main([str(path), "-o", str(tmp_path / "out"), "--quick", "evaluation.utterances=2"])
    ((study, folder),) = trained
    assert study.overrides == ["steps=9", "steps=1"] and folder == tmp_path / "out" / "quick"
    assert json.loads((folder / "summary.json").read_text())["n"] == 2
    assert ablation.main([str(path), "-o", str(tmp_path / "out"), "--only", "a"]) == 0
    assert "| a |" in capsys.readouterr().out


# -- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"variants": {"a/b": []}, "reference": "a/b"}, "cannot name a variant", id="slash"),
        pytest.param({"variants": {"..": []}, "reference": ".."}, "cannot name a variant", id="dots"),
        pytest.param({"variants": {"original": []}, "reference": "original"}, "cannot name", id="original"),
        pytest.param({"variants": {"a": []}, "models": {"a": "x"}, "reference": "a"}, "each name once", id="twice"),
        pytest.param({"variants": {"a": []}}, "reference is 'none'", id="no-reference"),
    ],
)
def test_studies_that_contradict_themselves_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Study(**settings)


@pytest.mark.parametrize(
    "settings",
    [pytest.param({"utterances": 0}, id="no-utterances"), pytest.param({"normaliser": "mine"}, id="normaliser")],
)
def test_evaluations_that_make_no_sense_are_refused(settings):
    with pytest.raises(ConfigError, match="evaluation"):
        Evaluation(**settings)


def test_unknown_variants_are_refused(bench, tmp_path):
    with pytest.raises(ConfigError, match="no variant c"):
        run_study(study_of(bench), tmp_path, only=["c"])


def test_the_shipped_study_changes_its_recipe_in_ways_the_recipe_knows():
    study = from_yaml(Study, ROOT / "recipes" / "ablation.yaml")
    assert study.reference in study.variants
    assert not study.variants["none"] and {"acoustic", "both"} < set(study.variants)
    for overrides in study.variants.values():
        for more in ([], study.quick):
            from_yaml(CodecRecipe, ROOT / study.recipe, [*study.overrides, *more, *overrides])


def test_the_reference_is_found_by_name(finished):
    _, rows = finished
    assert comparison.compare([], "a") == [] and any(row["difference"] for row in rows)
