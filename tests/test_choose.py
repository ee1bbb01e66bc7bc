"""Advice for tasks: its rules, constraints, figures from disk, and the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import speechtok
from speechtok.bench.choose import Constraints, choose, read_guide
from speechtok.bench.figures import Figure, Results, read_results
from speechtok.cli import COMMANDS, main
from speechtok.errors import ConfigError
from speechtok.tokenizers.published import ModelEntry
from speechtok.tokenizers.registry import models

ROOT = Path(__file__).parents[1]
TASKS = tuple(read_guide().tasks)


def entry(name, scheme, **changes):
    levels = {"A": 8, "E": 8, "B": 1}.get(scheme, 0)
    facts = {
        "bundled": True, "sample_rate": 16000, "hop": None if scheme == "D" else 320,
        "codebook_sizes": (1024,) * levels,
        "semantic_levels": {"E": (0,), "B": (0,)}.get(scheme, ()), "licence_code": "x", "licence_weights": "x",
        "verified": "x", "description": "x",
    }  # fmt: skip
    return ModelEntry(name=name, scheme=scheme, **(facts | changes))


ALL_FIVE = [entry(letter.lower(), letter) for letter in "ABCDE"]


def order(task, constraints=None, entries=ALL_FIVE, figures=()):
    found = choose(task, constraints or Constraints(), entries, Results(tuple(figures)))
    return "".join(option.letter for option in found.options)


def figure(tokenizer, mean, measure="pesq_wb", role="all", spread=0.1, **changes):
    facts = {"fingerprint": "f", "levels": None, "n": 50, "data": "d test", "tools": "", "file": "r.json"}
    return Figure(
        tokenizer, measure=measure, role=role, mean=mean, low=mean - spread, high=mean + spread, **(facts | changes)
    )


# the rules


@pytest.mark.parametrize(
    ("task", "first"),
    {
        "asr": "B", "tts": "E", "vc": "E", "speech-lm": "E", "understanding": "C", "compression": "A", "streaming": "A",
        "dialogue": "D",
    }.items(),
)  # fmt: skip
def test_the_guidance_of_the_article_and_the_review_leads(task, first):
    assert order(task)[0] == first


@pytest.mark.parametrize("task", TASKS)
def test_every_task_hears_of_every_scheme_and_says_what_would_change_it(task):
    found = choose(task, Constraints(), ALL_FIVE)
    assert all(option.rules for option in found.options)
    assert found.changes and found.commands


def test_every_rule_is_whole():
    guide = read_guide()
    assert set(guide.schemes) == set("ABCDE")
    assert len({rule.id for rule in guide.rules}) == len(guide.rules)
    for rule in guide.rules:
        assert rule.scheme in guide.schemes and set(rule.tasks) <= set(guide.tasks), rule.id
        assert set(rule.when) <= {"bitrate_below", "causal"}, rule.id
        assert -3 <= rule.points <= 3 and rule.points and rule.reason, rule.id
        cited = [part.partition(":")[0].strip() for part in rule.source.split(";")]
        assert cited and set(cited) <= set(guide.sources), rule.id


def test_every_rule_can_apply():
    tried = [(task, c) for task in TASKS for c in (Constraints(), Constraints(100, causal=True))]
    unused = [rule.id for rule in read_guide().rules if not any(rule.applies(*one) for one in tried)]
    assert unused == []


def test_recipes_modules_and_commands_that_are_named_exist():
    guide = read_guide()
    told = [line for scheme in guide.schemes.values() for line in scheme.start]
    told += [line for task in guide.tasks.values() for line in (task.command, task.measure)]
    for line in told:
        assert all((ROOT / path).is_file() for path in re.findall(r"recipes/\S+", line)), line
        module = re.match(r"python -m speechtok\.(\S+)", line)
        assert not module or (ROOT / "src/speechtok" / f"{module[1].replace('.', '/')}.py").is_file(), line
        command = re.match(r"speechtok (\S+)", line)
        assert not command or command[1] in COMMANDS, line
        assert module or command or line.startswith("pip install"), line


@pytest.mark.parametrize("task", TASKS)
def test_the_next_command_is_understood(task, monkeypatch, capsys):
    """Everything but the files it would need is there: the parser takes the line."""
    import shlex

    from speechtok import cli

    seen = []
    for module in cli.COMMANDS.values():
        monkeypatch.setattr(module, "run", lambda args: seen.append(args) or 0)
    command = choose(task, Constraints(offline=True), models()).commands[0]
    assert main(shlex.split(command)[1:]) == 0, (command, capsys.readouterr().err)
    assert len(seen) == 1


# constraints


def test_a_bitrate_takes_levels_and_then_the_model():
    found = choose("compression", Constraints(bitrate=1700), ALL_FIVE)
    codec = next(option for option in found.options if option.letter == "A").models[0]
    assert (codec.levels, codec.bitrate) == (3, 1500)
    assert found.commands[0].endswith("--model a --levels 3")
    without = choose("compression", Constraints(bitrate=499), ALL_FIVE)
    option = next(option for option in without.options if option.letter == "A")
    assert option.models == () and "499 bit/s" in dict(option.left_out)["a"]


def test_few_bits_leave_only_words():
    assert order("compression", Constraints(bitrate=100))[0] == "D"
    found = [choose("compression", Constraints(bitrate=limit), ALL_FIVE) for limit in (900, 1100)]
    assert [option.points for one in found for option in one.options if option.letter == "B"] == [1, -1]


def test_schemes_without_a_possible_model_come_last():
    entries = [replace(one, causal=one.scheme == "A") for one in ALL_FIVE]
    assert order("tts", Constraints(causal=True), entries)[0] == "A"
    online = [replace(one, bundled=one.scheme == "C") for one in ALL_FIVE]
    assert order("tts", Constraints(offline=True), online)[0] == "C"
    assert order("tts", entries=online)[0] == "E"


def test_streaming_leaves_out_what_is_not_causal():
    found = choose("streaming", Constraints(), ALL_FIVE)
    assert all(not option.models for option in found.options)
    assert dict(found.options[0].left_out) == {"a": "not causal"}


def test_a_stream_needs_a_causal_model_of_this_package():
    entries = [entry("some/codec", "A", causal=True), entry("mine", "E", causal=True)]
    found = choose("streaming", Constraints(), entries)
    assert [model.entry.name for option in found.options for model in option.models] == ["mine"]
    codec = next(option for option in found.options if option.letter == "A")
    assert dict(codec.left_out) == {"some/codec": "not in a stream: transformers runs it on the whole recording"}


def test_next_commands_keep_the_constraints():
    found = choose("streaming", Constraints(), ALL_FIVE[:1])
    assert found.options[0].letter == "A" and "codec.frame.causal=true" in found.commands[0]
    assert not any("recipes/" in line for line in choose("vc", Constraints(causal=True), []).commands)


def test_vectors_have_no_levels_and_are_compared_with_first_ones():
    rates = [figure("c", 0.1, "intent.accuracy", "all", 0.05), figure("b", 0.3, "intent.accuracy", "first", 0.05)]
    assert order("understanding")[0] == "C" and order("understanding", figures=rates)[0] == "B"


def test_units_that_speak_in_any_voice_convert_and_two_stages_do_not():
    units, stages = (entry("u", "B", conversion="voice"), entry("t", "E", conversion="none"))
    whole = figure("u", 0.7, "cosine_to_target", "whole voice")
    found = {one.letter: one for one in choose("vc", Constraints(), [units, stages], Results((whole,))).options}
    assert [model.entry.name for model in found["B"].models] == ["u"]
    assert [one.mean for one in found["B"].models[0].figures] == [0.7]
    assert dict(found["E"].left_out) == {"t": "no voice to exchange"}
    said = {one.name: one.conversion for one in speechtok.models()}
    assert (said["speechtok-units"], said["speechtok-two-stage"], said["speechtok-base"]) == ("voice", "none", "levels")


def test_conversion_needs_acoustic_levels():
    entries = [*ALL_FIVE, entry("x", "E", semantic_levels=tuple(range(8)))]
    option = choose("vc", Constraints(), entries).options[0]
    assert [model.entry.name for model in option.models] == ["e"] and dict(option.left_out) == {
        "x": "no voice to exchange"
    }


def test_other_constraints_that_would_change_the_answer_are_named():
    entries = [replace(one, causal=one.scheme == "A") for one in ALL_FIVE]
    assert any(line.startswith("With --causal: A would lead") for line in choose("tts", Constraints(), entries).changes)
    causal = choose("tts", Constraints(causal=True), entries)
    assert any(line.startswith("Without --causal: E would lead") for line in causal.changes)


@pytest.mark.parametrize("bitrate", [0, -1, float("nan")])
def test_a_bitrate_of_nothing_is_refused(bitrate):
    with pytest.raises(ConfigError, match="bit/s holds nothing"):
        Constraints(bitrate=bitrate)


# figures


def test_figures_that_are_clearly_apart_change_the_order():
    measured = [figure("a", 2.0), figure("e", 2.5)]
    found = choose("compression", Constraints(), ALL_FIVE, Results(tuple(measured)))
    assert found.options[0].letter == "E"
    assert found.moved == ("e before a: pesq_wb 2.5 against 2 (d test)",)
    assert any(line.startswith("Without the figures on disk: A would lead") for line in found.changes)
    assert found.used == [measured[1], measured[0]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (figure("a", 2.0), figure("e", 2.1)),
        (figure("a", 2.0), figure("e", 2.5, data="other test")),
        (figure("a", 2.0), figure("e", 2.5, n=40)),
        (figure("a", 2.0), figure("e", 2.5, tools="judge x")),
        (figure("a", 2.0), replace(figure("e", 2.5), low=None, high=None)),
        (figure("a", 2.0, measure="stoi"), figure("e", 2.5, measure="stoi")),
        (figure("a", 2.0, role="first"), figure("e", 2.5, role="first")),
        (figure("a", 2.0), figure("unlisted", 2.5)),
    ],
    ids=[
        "overlap",
        "other-data",
        "other-count",
        "other-tools",
        "no-interval",
        "not-deciding",
        "other-role",
        "unlisted",
    ],
)
def test_figures_that_decide_nothing_change_nothing(first, second):
    assert order("compression", figures=[first, second]) == order("compression")


def test_lower_error_rates_are_better():
    entries = [*ALL_FIVE, entry("f", "B")]
    rates = [figure("b", 0.5, "asr.cer", "first"), figure("f", 0.2, "asr.cer", "first")]
    option = choose("asr", Constraints(), entries, Results(tuple(rates))).options[0]
    assert [model.entry.name for model in option.models] == ["f", "b"]


def test_figures_of_all_levels_say_nothing_about_fewer():
    measured = [figure("a", 3.0), figure("a", 2.0, role="4 levels", levels=4)]
    for limit, expected in ((4000, [3.0]), (2000, [2.0]), (1000, [])):
        found = choose("compression", Constraints(bitrate=limit), ALL_FIVE, Results(tuple(measured)))
        option = next(option for option in found.options if option.letter == "A")
        assert [one.mean for one in option.models[0].figures] == expected


def test_what_was_not_measured_is_to_be_measured():
    assert any(
        "speechtok.bench.reconstruction" in line for line in choose("compression", Constraints(), ALL_FIVE).commands
    )
    known = Results((figure("a", 2.0),))
    assert len(choose("compression", Constraints(), ALL_FIVE, known).commands) == 1


# results on disk

ESTIMATE = {"mean": 2.0, "low": 1.9, "high": 2.1, "n": 50, "failed": 0, "reasons": {}}
NOTHING = {"mean": None, "low": None, "high": None, "n": 0, "failed": 50, "reasons": {"x": 50}}
SETTINGS = {"data": "d.tsv", "split": "test"}


def put(folder, name, **document):
    (folder / name).write_text(json.dumps(document))


@pytest.fixture
def results(tmp_path):
    """One file of each kind of benchmark, things that are none, and a damaged file."""
    put(
        tmp_path, "reconstruction.json", format="speechtok.reconstruction",
        tokenizer={"name": "a", "levels": 8, "fingerprint": "ffff"}, settings=SETTINGS,
        summary=[{"tokenizer": "a", "levels": k, "pesq_wb": ESTIMATE, "stoi": NOTHING} for k in (1, 4, 8)],
    )  # fmt: skip
    put(
        tmp_path, "conversion.json", format="speechtok.conversion", tokenizer={"name": "e", "levels": 8},
        settings=SETTINGS | {"judge": "pocketsphinx"},
        summary=[{"tokenizer": "e", "fingerprint": "eeee", "measure": "wer", "role": "2:4", **ESTIMATE}],
    )  # fmt: skip
    put(
        tmp_path, "summary.json", format="speechtok.ablation",
        study={"evaluation": {"data": "x/d.tsv", "split": "dev"}},
        summary=[{"tokenizer": "e", "fingerprint": "eeee", "measure": "pnmi", "role": "first", **ESTIMATE}],
    )  # fmt: skip
    put(tmp_path, "speed.json", unit="x", speeds=[])
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "damaged.json").write_text('{"format": "speechtok.recon')
    put(tmp_path, "odd.json", format="speechtok.x", summary=[{"tokenizer": "a", "m": ESTIMATE | {"mean": "2"}}])
    return tmp_path


def test_every_kind_of_result_is_read(results):
    found = read_results(results)
    facts = [(f.tokenizer, f.measure, f.role, f.levels, f.data, f.tools, f.fingerprint) for f in found.figures]
    assert facts == [
        ("e", "wer", "2:4", None, "d.tsv test", "judge pocketsphinx", "eeee"),
        ("a", "pesq_wb", "first", 1, "d.tsv test", "", "ffff"),
        ("a", "pesq_wb", "4 levels", 4, "d.tsv test", "", "ffff"),
        ("a", "pesq_wb", "all", 8, "d.tsv test", "", "ffff"),
        ("e", "pnmi", "first", None, "d.tsv dev", "", "eeee"),
    ]
    assert len(found.files) == 3
    assert [Path(line.partition(": ")[0]).name for line in found.unreadable] == ["damaged.json", "odd.json"]
    assert all("\n" not in line for line in found.unreadable)


def test_the_figures_of_this_repository_are_read():
    folder = ROOT / "benchmarks" / "results"
    found = read_results(folder)
    assert found.unreadable == ()
    assert {"pesq_wb", "stoi"} <= {one.measure for one in found.figures if one.tokenizer == "speechtok-base"}


# the command


def test_the_command_names_file_figure_reason_and_next_step(cli, tmp_path):
    put(
        tmp_path, "r.json", format="speechtok.reconstruction", settings=SETTINGS,
        tokenizer={"name": "speechtok-acoustic", "levels": 8, "fingerprint": "abcd"},
        summary=[{"tokenizer": "speechtok-acoustic", "levels": 8, "pesq_wb": ESTIMATE}],
    )  # fmt: skip
    code, out, err = cli("choose", "--task", "compression", "--offline", "--results", tmp_path)
    assert (code, err) == (0, [])
    assert f"pesq_wb, all: 2 [1.9, 2.1], n = 50, d.tsv test, fingerprint abcd, from {tmp_path / 'r.json'}" in out
    for part in (
        "constraints: offline",
        "[review: key results",
        "costs: ",
        "What would change it",
        "left out, not bundled",
    ):
        assert part in out
    assert out.rstrip().endswith("--model speechtok-acoustic")


def test_without_results_no_figure_is_shown(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("choose", "--task", "compression", "--json")
    said = json.loads(out)
    assert code == 0 and said["figures_from"] == []
    assert all(model["figures"] == [] for option in said["ranking"] for model in option["models"])
    assert said["ranking"][0]["scheme"] == "A"
    assert {"points", "reasons", "costs", "models", "left_out"} <= set(said["ranking"][0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "poetry"), "there are asr, tts"),
        (("--task", "asr", "--bitrate", "0"), "holds nothing"),
        (("--task", "asr", "--results", "nowhere"), "nowhere: no such folder"),
    ],
    ids=["task", "bitrate", "results"],
)
def test_mistakes_cost_one_line(cli, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("choose", *words)
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_help_names_every_task(cli):
    _, out, _ = cli("choose", "--help")
    assert all(task in out for task in TASKS)


def test_choosing_needs_no_torch():
    script = (
        "import sys; from speechtok.cli import main; main(['choose', '--task', 'vc']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
