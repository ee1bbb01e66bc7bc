"""The command `speechtok bench`: every task on tiny models, failures that count, resuming, files and the page."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import ROOT
from speechtok.audio import read
from speechtok.bench.choose import Constraints, choose
from speechtok.bench.figures import read_results
from speechtok.bench.judge import error_scores
from speechtok.bench.statistics import summarize
from speechtok.bench.suite import cost, tools
from speechtok.bench.tasks import TASKS, load_task
from speechtok.cli import main
from speechtok.report.page import tag
from speechtok.verify import CHECKS
from test_demo import Page
from tiny import tiny_tokenizer
from tiny_bench import SUITE, WORDS, FakeJudge, command, load, make_recordings, patch_tools, rounded, row_of

for package, extra in (("parselmouth", "pitch"), ("jiwer", "bench")):
    pytest.importorskip(package, reason=f"the report counts all measures; pip install 'speechtok[{extra}]'")

ASSETS = ROOT / "src" / "speechtok" / "assets"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("bench"))


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    patch_tools(monkeypatch)


@pytest.fixture(scope="module")
def finished(bench, tmp_path_factory):
    """One run of everything."""
    out = tmp_path_factory.mktemp("out") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch_tools(patch)
        patch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 4)  # the broken file among them
        assert command(bench, out) == 0
    return out


@pytest.fixture(scope="module")
def summary(finished):
    return json.loads((finished / "summary.json").read_text())


# -- the summary ----------------------------------------------------------------------------------------------------


def test_the_summary_keeps_its_schema(summary):
    jsonschema = pytest.importorskip("jsonschema", reason="the package jsonschema is not installed")
    schema = json.loads((ASSETS / "bench.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(summary, schema)
    broken = json.loads(json.dumps(summary))
    broken["summary"][0]["mean"] = "0.5"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_every_task_measures_the_codecs(summary):
    measured = {(row["tokenizer"], row["task"]) for row in summary["summary"]}
    assert {(name, task) for name in "ab" for task in SUITE} <= measured
    assert [one["name"] for one in summary["tokenizers"]] == ["a", "b", "words", "silent"]


def test_a_broken_file_raises_the_failures_and_no_mean(summary, finished):
    rows = [json.loads(line) for line in (finished / "rows.jsonl").read_text().splitlines()]
    for measure in ("stoi", "mel_distance", "mcd", "wer", "voice_cosine", "vde"):
        row = row_of(summary["summary"], "a", measure, "all", "reconstruction")
        assert row["n"] + row["failed"] == 4 and row["reasons"]["the file cannot be read"] == 1
        values = [
            one for one in rows if (one["tokenizer"], one["measure"], one["role"], one["task"])
            == ("a", measure, "all", "reconstruction")
        ]  # fmt: skip
        known = [(one["value"], one["weight"]) for one in values if one["value"] is not None]
        assert row["mean"] == pytest.approx(np.average(*np.array(known).T.tolist()[:1], weights=[w for _, w in known]))


def test_error_rates_are_those_of_the_judge(summary, bench):
    original = row_of(summary["summary"], "original", "wer", "original")
    heard = [FakeJudge().transcribe(read(bench / f"{i}.wav")) for i in range(3)]
    expected = summarize(error_scores(text, said)[0] for text, said in zip(WORDS, heard, strict=True))
    assert original["mean"] == pytest.approx(expected.mean) and original["n"] == 3
    words = row_of(summary["summary"], "words", "wer", "all")
    assert words["mean"] == pytest.approx(6 / 9)  # it is right about the first of three texts


def test_what_does_not_apply_is_said_and_has_no_number(summary):
    reasons = {(one["tokenizer"], one["task"]): one["reason"] for one in summary["not_applicable"]}
    assert "no waveform" in reasons["silent", "reconstruction"]
    assert "acoustic levels" in reasons["silent", "conversion"] and "no voice" in reasons["words", "conversion"]
    for tokenizer in ("silent", "words"):
        assert not [r for r in summary["summary"] if (r["tokenizer"], r["task"]) == (tokenizer, "conversion")]
    assert row_of(summary["summary"], "silent", "pnmi", "first")["n"] == 3


def test_a_model_that_cannot_load_is_a_counted_failure(summary):
    assert summary["failures"] == [
        {"tokenizer": "absent", "stage": "loading", "reason": "absent: its package is missing; install it"}
    ]


def test_differences_are_paired_by_utterance(summary):
    apart = row_of(summary["differences"], "b", "mcd", "all", "reconstruction")
    ours, theirs = (row_of(summary["summary"], name, "mcd", "all")["mean"] for name in "ba")
    assert apart["reference"] == "a" and apart["n"] == 3
    assert apart["mean"] == pytest.approx(ours - theirs)
    assert not [row for row in summary["differences"] if row["tokenizer"] == "a"]


def test_codes_are_counted(summary):
    rows = summary["summary"]
    assert row_of(rows, "a", "nominal_bitrate", "all")["mean"] == pytest.approx(200 * 4 * 5)
    assert row_of(rows, "a", "tokens_per_second", "all")["mean"] == pytest.approx(800)
    runs = row_of(rows, "a", "runs_per_second", "first")
    assert 0 < runs["mean"] <= 200
    entropy = [row_of(rows, "a", "entropy_bitrate", role)["mean"] for role in ("first", "all")]
    assert 0 < entropy[0] < entropy[1] <= 4000
    assert 0 < row_of(rows, "a", "pnmi", "first")["mean"] <= 1
    assert row_of(rows, "words", "tokens_per_second", "all")["mean"] == pytest.approx(3)


def test_promises_are_counted(summary):
    kept = [row for row in summary["summary"] if (row["tokenizer"], row["measure"]) == ("a", "kept")]
    broken = row_of(summary["summary"], "a", "broken", "broken")
    assert broken["mean"] == sum(row["mean"] == 0 for row in kept) == 0
    assert broken["n"] == len(kept) <= len(CHECKS)


def test_costs_are_there(summary):
    for measure in cost.MEASURES:
        assert row_of(summary["summary"], "a", measure, "all")["mean"] > 0
    parameters = sum(p.numel() * 4 for p in tiny_tokenizer().codec.parameters())
    assert row_of(summary["summary"], "a", "model_size", "all")["mean"] * 1e6 >= parameters
    refused = {(one["tokenizer"], one["measure"]): one["reason"] for one in summary["not_applicable"]}
    assert "no waveform" in refused["silent", "decode_speed"] and "text" in refused["words", "decode_speed"]


# -- resuming, and the folder ---------------------------------------------------------------------------------------


def test_a_second_run_measures_nothing_and_says_the_same(finished, summary, bench, monkeypatch):
    monkeypatch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 4)
    FakeJudge.asked = 0
    assert command(bench, finished) == 0
    assert FakeJudge.asked == 0
    assert json.loads((finished / "summary.json").read_text()) == summary


def test_a_killed_run_goes_on_and_says_the_same(finished, summary, bench, tmp_path, monkeypatch):
    monkeypatch.setattr("speechtok.bench.suite.speech.QUICK_ITEMS", 4)
    tasks, out = ["--tasks", "reconstruction", "robustness"], tmp_path / "killed"

    hear, left = FakeJudge.transcribe, iter(range(8))

    def killed(self, audio):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return hear(self, audio)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeJudge, "transcribe", killed)
        assert command(bench, out, *tasks) == 130
    assert not (out / "summary.json").exists()
    part = max((out / "cache" / "reconstruction").glob("*.0.jsonl"), key=lambda path: path.stat().st_size)
    part.write_text(part.read_text() + '{"item": "cut sho')
    assert command(bench, out, *tasks) == 0
    again = json.loads((out / "summary.json").read_text())
    assert rounded(again["summary"]) == rounded([row for row in summary["summary"] if row["task"] in tasks])


def test_nothing_measured_is_an_error(bench, tmp_path, capsys):
    assert command(bench, tmp_path / "out", "--tasks", "codes", models=["absent"]) == 2
    assert "nothing could be measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tasks", "dreams"], "no task 'dreams'"),
        (["--models", "a", "--tasks", "codes"], "two tokenizers are called a"),
    ],
)
def test_what_cannot_be_done_is_one_line(bench, tmp_path, more, message, capsys):
    assert command(bench, tmp_path / "out", *more, models=["a"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_reference_that_no_name_can_be_is_refused_at_once(bench, tmp_path, capsys):
    assert command(bench, tmp_path, "--reference", "c", "--tasks", "codes", models=["first=a"]) == 2
    written = capsys.readouterr()
    assert "no tokenizer is called c; differences can be taken from first" in written.err and not written.out


def test_what_is_only_seen_at_the_end_costs_no_figures(bench, tmp_path):
    arguments = ("--reference", "c", "--tasks", "codes")
    assert command(bench, tmp_path / "out", *arguments, models=["a"]) == 0
    document = json.loads((tmp_path / "out" / "summary.json").read_text())
    reasons = {(one["tokenizer"], one["stage"]): one["reason"] for one in document["failures"]}
    assert "no tokenizer is called c" in reasons["c", "differences"] and document["differences"] == []
    assert any(row["tokenizer"] == "a" for row in document["summary"])


def test_another_tokenizer_of_one_name_is_a_failure_of_its_own(bench, tmp_path):
    def twin(name, device="cpu"):
        return load("a", device)  # a folder may hold a tokenizer of any name

    words = ["bench", "--quick", "-o", str(tmp_path), "--models", "a", "b", "--tasks", "codes"]
    assert main([*words, "--data", str(bench / "data.tsv")], load=twin) == 0
    (failure,) = json.loads((tmp_path / "summary.json").read_text())["failures"]
    assert "another tokenizer is called a, too; write --models NAME=b" in failure["reason"]


def test_names_can_be_given(bench, tmp_path):
    assert command(bench, tmp_path / "out", "--tasks", "codes", models=["first=a", "second=b"]) == 0
    document = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [one["name"] for one in document["tokenizers"]] == ["first", "second"]


def test_the_bundled_clips_need_no_manifest(tmp_path):
    assert main(["bench", "--quick", "--models", "a", "--tasks", "codes", "-o", str(tmp_path)], load=load) == 0
    document = json.loads((tmp_path / "summary.json").read_text())
    assert document["settings"]["recordings"] == 3 and document["settings"]["data"] == "bundled clips"


def test_choose_reads_the_figures(finished):
    results = read_results(finished)
    assert not results.unreadable and len(results.files) == 1
    figure = next(one for one in results.figures if (one.tokenizer, one.measure, one.role) == ("a", "mcd", "all"))
    assert figure.levels == 4 and "test" in figure.data and figure.tools
    choose("compression", Constraints(), [], results)


def test_a_missing_package_is_counted_and_not_kept(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "find_spec", lambda name: None if name == "parselmouth" else True)
    assert command(bench, tmp_path, "--tasks", "reconstruction", models=["a"]) == 0
    row = row_of(json.loads((tmp_path / "summary.json").read_text())["summary"], "a", "gpe", "all")
    assert row["n"] == 0 and "parselmouth" in next(iter(row["reasons"]))
    kept = Counter(
        json.loads(line)["what"].partition("@")[0]
        for path in Path(tmp_path / "cache" / "reconstruction").glob("[!o]*.0.jsonl")
        for line in path.read_text().splitlines()
    )
    assert "mcd" in kept and "melody" not in kept


# -- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(finished):
    source = re.sub(r"<(path|line|polyline)([^>]*)/>", r"<line\2>", (finished / "report.html").read_text("utf-8"))
    return Page(source)


def test_the_page_stands_alone(finished, page):
    addresses = [a.get(key) or "" for _, a in page.elements for key in ("src", "href", "srcset", "poster") if key in a]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    names = {attributes.get("id") for _, attributes in page.elements}
    assert {link["href"][1:] for link in page.all("a")} <= names and page.open == []
    source = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", (finished / "report.html").read_text("utf-8"))
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", source)


def test_the_page_shows_what_was_measured(page, summary):
    words = " ".join(page.words)
    for expected in ("PESQ-WB", "MCD", "GPE", "unit edit distance", "absent", "Does not apply", "A quick run"):
        assert expected in words, expected
    assert len(page.all("table", "sortable")) >= len(SUITE)
    assert len(page.all("audio")) == len([one for one in summary["examples"] if "file" in one]) == 2 * (1 + 2 * 2)
    assert summary["command"] in words and "speechtok bench --quick" in summary["command"]


def test_published_numbers_stand_apart(page, summary):
    groups = yaml.safe_load((ASSETS / "published.yaml").read_text())
    assert all(len(row) == len(group["columns"]) for group in groups for row in group["rows"])
    assert all(group["source"] and group["seen"] in {"paper", "page", "second-hand"} for group in groups)
    assert len(page.all("div", "published")) == 1
    assert "EnCodec RVQ-1" not in json.dumps(summary)


def test_every_measure_is_explained():
    meanings = yaml.safe_load((ASSETS / "measures.yaml").read_text())
    for task in TASKS:
        unexplained = [name for name in load_task(task).MEASURES if not {name, f"{task}.{name}"} & set(meanings)]
        assert not unexplained, task


def test_cells_are_escaped():
    assert "<b>" not in tag("td", "<b>")
