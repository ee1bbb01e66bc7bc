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
from speechtok.audio import Audio, read, write
from speechtok.bench import facts
from speechtok.bench.choose import Constraints, choose
from speechtok.bench.conversion import WHOLE
from speechtok.bench.figures import read_results
from speechtok.bench.judge import error_scores
from speechtok.bench.statistics import summarize
from speechtok.bench.suite import cost, invariance, robustness, tools
from speechtok.bench.suite.conversion import ranges_of
from speechtok.bench.tasks import TASKS, load_task
from speechtok.cli import main
from speechtok.clips import bundled_clips
from speechtok.errors import CheckpointError, NotSupportedError
from speechtok.guidance.phones import Segment, write_segments
from speechtok.report.page import tag
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.verify import CHECKS
from test_demo import Page
from tiny import tiny_tokenizer

for package, extra in (("parselmouth", "pitch"), ("jiwer", "bench")):
    pytest.importorskip(package, reason=f"the report counts all measures; pip install 'speechtok[{extra}]'")

WORDS = ("one two three", "four five six", "seven eight nine")
SUITE = ("reconstruction", "conversion", "codes", "robustness", "cost", "invariance")
MODELS = ("a", "b", "words", "silent", "absent")
ASSETS = ROOT / "src" / "speechtok" / "assets"


class FakeJudge:
    """Hears one word per quarter that is loud."""

    name, asked = "fake", 0

    def transcribe(self, audio):
        type(self).asked += 1
        power = [float(np.mean(part**2)) for part in np.array_split(audio.samples, 3)]
        return " ".join(word for word, loud in zip(WORDS[0].split(), power, strict=True) if loud > 1e-3)


class FakeVoice:
    """The means of four parts of the spectrum."""

    name = "fake"

    def embed(self, audio):
        parts = np.array([part.mean() for part in np.array_split(np.abs(np.fft.rfft(audio.samples)), 4)])
        return parts / np.linalg.norm(parts)


class Words(Tokenizer):
    """Text tokens of somebody who always hears the same."""

    value, scheme, name, sample_rate = TextTokens, "D", "words", 8000
    hop, codebook_sizes, semantic_levels = None, (), ()
    fingerprint = "0123456789abcdef"

    def describe(self):
        absent = {"hop": None, "frame_rate": None, "bitrate": None, "levels": 0}
        facts = {"name": self.name, "scheme": "D", "sample_rate": 8000, "fingerprint": self.fingerprint}
        return facts | absent | {"codebook_sizes": [], "semantic_levels": [], "causal": False}

    def checked_levels(self, levels):
        return 0

    def encode(self, audio, levels=None):
        count = len(audio.resample(8000))
        return TextTokens(np.arange(3), "one two three", 10, 8000, count, self.name, self.fingerprint)

    def decode(self, tokens):
        return tokens.text

    def _encode(self, samples, levels):
        raise NotSupportedError("text")

    _decode = _encode


class Silent(Tokenizer):
    """Units without a vocoder."""

    scheme, name, sample_rate, hop = "B", "silent", 8000, 80
    codebook_sizes, semantic_levels, fingerprint = (7,), (0,), "fedcba9876543210"

    def _encode(self, samples, levels):
        loud = np.add.reduceat(np.abs(samples), np.arange(0, len(samples), 80))
        return np.minimum(6, loud.astype(np.int64))[None]

    def _decode(self, codes, first_level):
        raise NotSupportedError("units have no waveform by themselves")


def load(name, device="cpu"):
    """Five models: two codecs, text, units without sound, and one that cannot be loaded."""
    if name == "absent":
        raise CheckpointError("absent: its package is missing; install it")
    if name in ("words", "silent"):
        return {"words": Words, "silent": Silent}[name]()
    tokenizer = tiny_tokenizer("frame", seed="ab".index(name))
    tokenizer.name = name
    return tokenizer


def measure_in_memory(model, seconds, repeats, device):
    """The process of the cost, without the process: it would import torch for every tiny model."""
    found = cost.measure_cost(load(model), 1.0, repeats)
    found["figures"]["peak_memory"] = [100.0]
    return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Excerpts of bundled clips with texts and phones; one file is broken."""
    folder = tmp_path_factory.mktemp("bench")
    rows, segments = ["path\tsplit\tspeaker\ttext"], {}
    for i, text in enumerate(WORDS):
        write(folder / f"{i}.wav", Audio(read(bundled_clips()[i].path).samples[8000:24000], 16000))
        rows.append(f"{i}.wav\ttest\tspeaker{i}\t{text}")
        segments[str(i)] = [Segment(0.0, 0.3, "AA"), Segment(0.3, 0.7, "S"), Segment(0.7, 1.0, "SIL")]
    (folder / "broken.wav").write_bytes(b"no audio")
    rows.append("broken.wav\ttest\tspeaker0\tten")
    (folder / "data.tsv").write_text("\n".join(rows) + "\n")
    write_segments(folder / "phones.tsv", segments)
    return folder


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    patch_tools(monkeypatch)


def patch_tools(patch):
    tools._tools.cache_clear()
    patch.setattr(facts, "load_judge", lambda name: FakeJudge())
    patch.setattr(facts, "load_encoder", lambda name: FakeVoice())
    patch.setattr(cost, "_in_process", measure_in_memory)


def command(bench, out, *more, models=MODELS):
    data = ["--data", str(bench / "data.tsv"), "--phones", str(bench / "phones.tsv")]
    tasks = [] if "--tasks" in more else ["--tasks", *SUITE]
    words = ["bench", "--quick", "-o", str(out), "--models", *models, *data, *tasks, "--utterances", "4", *more]
    return main(words, load=load)


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


def row_of(rows, *key, fields=("tokenizer", "measure", "role", "task")):
    (row,) = (row for row in rows if all(row[name] == value for name, value in zip(fields, key, strict=False)))
    return row


def rounded(value):
    """Without the last bits, which depend on where in memory an array lies."""
    if isinstance(value, dict | list):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: rounded(one) for key, one in pairs}
    return round(value, 9) if isinstance(value, float) else value


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
        (["--reference", "c", "--tasks", "codes"], "no tokenizer is called c"),
        (["--models", "a", "--tasks", "codes"], "two tokenizers are called a"),
    ],
)
def test_what_cannot_be_done_is_one_line(bench, tmp_path, more, message, capsys):
    assert command(bench, tmp_path / "out", *more, models=["a"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


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


# -- tasks ----------------------------------------------------------------------------------------------------------


def test_unit_edit_distance_is_levenshtein_by_length():
    assert robustness.unit_edit_distance("kitten", "sitting") == pytest.approx(3 / 6)
    assert robustness.unit_edit_distance([1, 2, 3], [1, 2, 3]) == 0
    with pytest.raises(robustness.MetricError, match="no tokens"):
        robustness.unit_edit_distance([], [1])


def test_disturbances_do_what_they_say(speech):
    audio, model = speech(1.0, 8000), tiny_tokenizer()
    random = np.random.default_rng(0)
    found = {name: disturb(audio, model, random) for name, disturb in robustness.DISTURBANCES.items()}
    noise = found["noise, 20 dB SNR"] - audio.samples
    ratio = 10 * np.log10(np.mean(audio.samples**2) / np.mean(noise**2))
    assert ratio == pytest.approx(20, abs=0.2)
    assert found["gain, -6 dB"] == pytest.approx(audio.samples * 0.501, abs=1e-3)
    assert len(found["resampled"]) == len(audio) and np.abs(found["resampled"] - audio.samples).mean() < 0.01
    assert len(found["half a frame later"]) == len(audio) - model.hop // 2


def test_ranges_follow_the_paper_and_voices_are_taken_whole():
    assert ranges_of(tiny_tokenizer()) == [slice(1, 2), slice(1, 4)]
    voiced = tiny_tokenizer()
    voiced.voices = True
    assert ranges_of(voiced) == [None] and WHOLE
    with pytest.raises(NotSupportedError):
        ranges_of(Silent())


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


def test_tensors_are_counted_once():
    model = tiny_tokenizer()
    model.again = [model.codec, {"same": model.codec}]
    assert cost.tensor_bytes(model) == cost.tensor_bytes(tiny_tokenizer()) > 0


def test_invariance_needs_a_recording(tmp_path):
    from speechtok.bench.tasks import Options, Speech

    with pytest.raises(NotSupportedError, match="none of the recordings"):
        invariance.measure(tiny_tokenizer(), Speech(None, "", ()), tmp_path, Options())


def test_cells_are_escaped():
    assert "<b>" not in tag("td", "<b>")
