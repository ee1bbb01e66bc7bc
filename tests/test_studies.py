"""Studies over results of the benchmark: figures by hand, rules on built curves, and inputs that are not there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechtok.bench.bitrates import row_bitrate
from speechtok.bench.statistics import bootstrap_mean
from speechtok.bench.studies.__main__ import main
from speechtok.bench.studies.bend import find_bend
from speechtok.bench.studies.codebooks import codebooks, read_codes
from speechtok.bench.studies.drawing import spread
from speechtok.bench.studies.knee import knee, losses_of
from speechtok.bench.studies.prompt import prompt
from speechtok.bench.studies.results import BenchResults, Stage
from speechtok.bench.studies.settings import Settings
from speechtok.bench.studies.study import Study, Table, cell
from speechtok.bench.studies.tradeoff import Spot, front, spots_of, surely_beaten, tradeoff
from speechtok.bench.tables import Shown
from speechtok.bench.tasks import level_role
from speechtok.errors import ConfigError
from speechtok.report.charts import Point, Series, rate_chart, round_values
from speechtok.report.page import tag
from speechtok.report.studies import study_parts
from speechtok.report.tables import task_table

pytest.importorskip("matplotlib", reason="the studies draw; pip install 'speechtok[bench]'")

UP, DOWN = Shown("up", True), Shown("down", False)
UTTERANCES = ("u1", "u2", "u3")
WORDS = (2.0, 4.0, 2.0)
LEVELS = (1, 2, 4)
TWINS = {"mini": 50.0, "mini-plain": 50.0, "mini-causal": 50.0, "mini-25hz": 25.0}


def about(name, rate, levels=4, scheme="A"):
    return {
        "name": name, "fingerprint": f"print-{name}", "scheme": scheme, "frame_rate": rate, "levels": levels,
        "codebook_sizes": [4] * levels, "bitrate": rate * 2 * levels if levels else 800.0,
    }  # fmt: skip


class Built:
    """A folder of results with known values."""

    def __init__(self, folder):
        self.folder, self.summary, self.rows, self.tokenizers = folder, [], [], []

    def tokenizer(self, name, rate, levels=4, scheme="A"):
        self.tokenizers.append(about(name, rate, levels, scheme))

    def put(self, name, task, measure, levels, values, weights=(1.0, 1.0, 1.0), role=None):
        """One figure and its rows; ``levels`` None is of vectors."""
        all_levels = next(one["levels"] for one in self.tokenizers if one["name"] == name)
        role = role or (level_role(levels, all_levels) if levels else "all")
        head = {"tokenizer": name, "fingerprint": f"print-{name}", "task": task, "measure": measure, "role": role}
        head["levels"] = levels
        known = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
        estimate = bootstrap_mean([v for v, _ in known], weights=[w for _, w in known])
        self.summary.append(head | estimate.to_dict())
        for one, value, weight in zip(UTTERANCES, values, weights, strict=True):
            self.rows.append(head | {"utterance": one, "value": value, "weight": weight})

    def codes(self, name, codes):
        """What the task ``codes`` keeps: ``[Q, N]`` by utterance."""
        folder = self.folder / "cache" / "codes"
        folder.mkdir(parents=True, exist_ok=True)
        facts = [
            {"item": f"{one} abc", "what": "tokens", "failure": None, "value": {"codes": rows}}
            for one, rows in codes.items()
        ]
        (folder / f"print-{name}.0.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in facts))

    def results(self):
        document = {"format": "speechtok.bench", "tokenizers": self.tokenizers, "summary": self.summary}
        (self.folder / "summary.json").write_text(json.dumps(document))
        (self.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        return BenchResults.read(self.folder)


@pytest.fixture
def built(tmp_path):
    """Twins whose WER falls with the levels; the causal one is worse by 0.1, 0.1 and 0.4."""
    one = Built(tmp_path)
    for name, rate in TWINS.items():
        one.tokenizer(name, rate)
        worse = (0.1, 0.1, 0.4) if name == "mini-causal" else (0.0, 0.0, 0.0)
        for levels, wer in zip(LEVELS, (0.9, 0.31, 0.3), strict=True):
            one.put(name, "reconstruction", "wer", levels, [wer + more for more in worse], WORDS)
            one.put(name, "reconstruction", "stoi", levels, [0.5 + levels / 10, 0.6, 0.7])
        one.put(name, "codes", "tokens_per_second", 4, [rate * 4] * 3)
    return one


def numbers(study, **wanted):
    """The figures of a study with these values."""
    return [one for one in study.numbers if all(one[key] == value for key, value in wanted.items())]


# -- results --------------------------------------------------------------------------------------------------------


def test_figures_are_found_by_levels_and_other_roles_are_none_of_them(built):
    built.tokenizer("soft", 50.0, levels=0, scheme="C")
    built.put("soft", "asr", "cer", None, [0.1, 0.2, 0.3])
    built.put("mini", "codes", "pnmi", 1, [0.4, 0.4, 0.4], role="first")
    built.put("mini", "codes", "pnmi", None, [0.9, 0.9, 0.9], role="level 2")
    built.put("mini", "intent", "accuracy", None, [0.2, 0.2, 0.2], role="chance")
    found = built.results()
    assert found.figure(Stage("mini", 1), "pnmi", "codes")["mean"] == pytest.approx(0.4)
    assert found.stages("mini", "pnmi", "codes") == [Stage("mini", 1)]
    assert found.stages("mini", "accuracy", "intent") == []
    assert found.figure(found.full("soft"), "cer", "asr")["mean"] == pytest.approx(0.2)
    assert found.full("mini") == Stage("mini", 4) and found.bitrate(Stage("mini", 2)) == 200.0
    assert row_bitrate(found.document, {"tokenizer": "soft", "levels": None}) == 800.0


def test_what_is_no_benchmark_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        BenchResults.read(tmp_path / "absent.json")
    (tmp_path / "other.json").write_text('{"format": "speechtok.vocoding"}')
    with pytest.raises(ConfigError, match="format is not speechtok"):
        BenchResults.read(tmp_path / "other.json")


# -- sound against words --------------------------------------------------------------------------------------------


def spot(sound, told, wide=0.0):
    row = [{"mean": value, "low": value - wide, "high": value + wide} for value in (sound, told)]
    return Spot(Stage("x", 1), 500.0, *row)


def test_the_front_is_what_nothing_beats_on_both_sides():
    spots = [spot(3.0, 0.8), spot(2.0, 0.2), spot(1.0, 0.1), spot(1.9, 0.3), spot(2.0, 0.2)]
    assert front(spots, UP, DOWN) == [True, True, True, False, True]


def test_surely_beaten_needs_intervals_apart_on_both_sides():
    assert surely_beaten([spot(2.0, 0.2, 0.01), spot(1.9, 0.3, 0.01)], UP, DOWN) == [False, True]
    assert surely_beaten([spot(2.0, 0.2, 0.06), spot(1.9, 0.3, 0.06)], UP, DOWN) == [False, False]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(places):
    spots = [spot(float(a), float(b)) for a, b in places]
    on = front(spots, UP, UP)
    assert any(on)
    for (a, b), ringed in zip(places, on, strict=True):
        better = [c >= a and d >= b and (c, d) != (a, b) for (c, d), best in zip(places, on, strict=True) if best]
        assert ringed != any(better)


def test_points_are_where_both_sides_were_measured(built):
    built.put("mini", "asr", "cer", 1, [0.5, 0.5, 0.5])
    built.put("mini", "asr", "cer", 4, [0.4, 0.4, 0.4])
    built.put("mini-plain", "asr", "cer", 8, [0.4, 0.4, 0.4], role="all")
    results = built.results()
    assert [one.stage for one in spots_of(results, "stoi", "asr", "cer")] == [Stage("mini", 1), Stage("mini", 4)]
    study = tradeoff(results, Settings())
    cer = numbers(study, measure="asr.cer", levels=4)
    assert cer[0]["mean"] == pytest.approx(0.4) and cer[0]["n"] == 3 and cer[0]["front"]
    assert "asr.cer and reconstruction.pesq_wb of one tokenizer at one number of levels" in study.missing
    assert any(line.startswith("mini-plain: no point with asr.cer") for line in study.missing)
    assert any(line.startswith("codes.pnmi") for line in study.missing)


# -- twins ----------------------------------------------------------------------------------------------------------


def test_differences_of_twins_are_those_by_hand(built, tmp_path):
    from speechtok.bench.studies.causal import causal

    study = causal(built.results(), Settings())
    apart = numbers(study, measure="wer", levels="all levels", ours="mini-causal", theirs="mini-plain")[0]
    assert apart["mean"] == pytest.approx((0.1 * 2 + 0.1 * 4 + 0.4 * 2) / 8)
    assert apart["n"] == 3 and apart["low"] >= 0.1 - 1e-9
    same = numbers(study, measure="wer", levels="first level", ours="mini-plain", theirs="mini")[0]
    assert same["mean"] == same["low"] == same["high"] == 0
    assert "pesq_wb of mini-causal and mini-plain on common utterances, first level" in study.missing
    assert not numbers(study, measure="pesq_wb")


def test_a_missing_twin_is_a_line_and_no_figure(built):
    from speechtok.bench.studies.causal import causal

    study = causal(built.results(), Settings(causal="absent"))
    assert "tokenizer absent" in study.missing
    assert not numbers(study, ours="absent")


# -- the knee -------------------------------------------------------------------------------------------------------


def test_the_knee_of_a_built_curve():
    losses = np.array([[0.6, 0.04, 0.0, 0.0], [0.6, 0.04, 0.0, 0.0], [0.6, 0.04, 0.03, 0.0]])
    bend = find_bend(losses, [500, 1000, 2000, 4000], 0.05)
    assert (bend.at, bend.low, bend.high, bend.sure, bend.n) == (1000, 1000, 1000, 1000, 3)
    assert not bend.below and not bend.above
    strict = find_bend(losses, [500, 1000, 2000, 4000], 0.02)
    assert strict.at == 2000 and strict.sure == 4000 and (strict.low, strict.high) == (2000, 4000)


def test_a_curve_that_rises_again_has_its_knee_above_the_bump():
    bend = find_bend(np.array([[0.0, 0.2, 0.0, 0.0]] * 3), [1, 2, 4, 8], 0.05)
    assert bend.at == 4


def test_knees_at_the_ends_say_so():
    flat = find_bend(np.zeros((3, 3)), [1, 2, 4], 0.05)
    falling = find_bend(np.array([[0.9, 0.5, 0.0]] * 3), [1, 2, 4], 0.05)
    assert flat.below and flat.at == 1 and falling.above and falling.at == 4


def test_weights_decide_the_mean_loss():
    losses = np.array([[0.3, 0.0], [0.0, 0.0]])
    assert find_bend(losses, [1, 2], 0.05, [1.0, 99.0]).at == 1
    assert find_bend(losses, [1, 2], 0.05, [99.0, 1.0]).at == 2


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0, 0.5))
def test_a_knee_is_a_place_within_its_interval_and_not_above_the_sure_one(losses, margin):
    rates = [1, 2, 4, 8, 16]
    bend = find_bend(np.array([[*losses, 0.0]] * 4), rates, margin)
    assert {bend.at, bend.low, bend.high, bend.sure} <= set(rates)
    assert bend.low <= bend.at <= bend.high and bend.at <= bend.sure


def test_knees_of_results(built):
    results = built.results()
    study = knee(results, Settings())
    one = numbers(study, table="knees", tokenizer="mini", measure="wer")[0]
    assert one["mean"] == 200.0 and one["sure"] == 200.0 and one["n"] == 3  # two levels of 50 frames of two bits
    assert numbers(study, table="knees", tokenizer="mini-25hz", measure="wer")[0]["mean"] == 100.0
    assert not numbers(study, table="knees", tokenizer="mini-causal")
    equal = numbers(study, table="at the same bitrate", ours=["mini-25hz", 2], theirs=["mini", 1], measure="wer")[0]
    assert equal["mean"] == pytest.approx(0.31 - 0.9)
    assert "tokenizer mini-12hz" in study.missing
    assert any(line.startswith("pesq_wb of a codec") for line in study.missing)


def test_an_utterance_without_a_value_is_left_out_of_the_curve(built):
    built.tokenizer("holes", 50.0)
    for levels in LEVELS:
        built.put("holes", "reconstruction", "wer", levels, [0.5, None if levels == 2 else 0.2, 0.4], WORDS)
    losses, weights = losses_of(built.results(), [Stage("holes", levels) for levels in LEVELS], "wer")
    assert losses.shape == (2, 3) and weights == [2.0, 2.0]


def test_a_summary_alone_has_curves_and_no_knees(built):
    built.results()
    study = knee(BenchResults.read(built.folder / "summary.json"), Settings())
    assert numbers(study, table="curves") and not numbers(study, table="knees")
    assert any("rows.jsonl" in line for line in study.missing)


# -- the prompt -----------------------------------------------------------------------------------------------------


def test_the_prompt_is_compared_by_utterance():
    rows = [
        {"utterance": name, "role": role, "wer": wer, "cosine_to_source": 0.5, "pitch_correlation": None}
        for name, same, other in (("a", 0.2, 0.5), ("b", 0.3, 0.4))
        for role, wer in (("same utterance", same), ("another utterance", other))
    ]
    mean = {"measure": "wer", "role": "same utterance", **bootstrap_mean([0.2, 0.3]).to_dict()}
    study = prompt({"summary": [mean], "utterances": rows})
    one = numbers(study, table="differences", measure="wer")[0]
    assert one["mean"] == pytest.approx(-0.2) and one["n"] == 2
    assert not numbers(study, measure="pitch_correlation")
    assert "wer with the prompt: another utterance" in study.missing


def test_without_rows_only_the_means_are_left():
    study = prompt({"summary": [{"measure": "wer", "role": "same utterance", **bootstrap_mean([0.2, 0.3]).to_dict()}]})
    assert len(study.numbers) == 1 and any("rows of utterances" in line for line in study.missing)
    assert not prompt(None).made and prompt(None).missing


# -- codebooks ------------------------------------------------------------------------------------------------------


def test_usage_comes_from_the_cached_codes_of_the_run(built):
    built.codes("mini", {"u1": [[0, 0, 1, 1]] * 4, "u2": [[0, 1, 0, 1]] * 4, "elsewhere": [[3, 3, 3, 3]] * 4})
    results = built.results()
    assert len(read_codes(results, "mini")) == 2
    study = codebooks(results, Settings())
    use = numbers(study, tokenizer="mini", level=1, measure="usage")[0]
    even = numbers(study, tokenizer="mini", level=1, measure="normalised_perplexity")[0]
    assert use["mean"] == 0.5 and use["frames"] == 8 and use["n"] == 2
    assert even["mean"] == pytest.approx(2 / 4) and even["low"] <= even["mean"] <= even["high"]
    assert "mini-plain: codes of task codes in the cache of the results" in study.missing


def test_codes_that_are_not_those_of_the_summary_are_told(built):
    built.codes("mini", {"u1": [[0, 0, 1, 1]] * 4})
    built.put("mini", "codes", "perplexity", 1, [3.0, 3.0, 3.0], role="first")
    assert any("not those of the summary" in line for line in codebooks(built.results(), Settings()).missing)


# -- the command, and what it writes --------------------------------------------------------------------------------


def test_the_command_writes_tables_numbers_and_pictures(built, tmp_path, capsys):
    built.results()
    folder = tmp_path / "studies"
    assert main([str(built.folder), "-o", str(folder), "--margin", "wer=0.005"]) == 0
    document = json.loads((folder / "studies.json").read_text())
    studies = {one["name"]: one for one in document["studies"]}
    assert set(studies) == {"tradeoff", "causal", "knee", "prompt", "codebooks"}
    assert not studies["prompt"]["made"] and studies["causal"]["made"]
    found = [one for one in studies["knee"]["numbers"] if one["table"] == "knees" and one["measure"] == "wer"]
    assert found[0]["mean"] == 400.0 and found[0]["above"]
    for name in (name for one in studies.values() for name in one["pictures"]):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"
    page = (folder / "studies.md").read_text()
    assert "Not made." in page and "**0.175" in page and "WER 0.005" in page
    assert "prompt: not made" in capsys.readouterr().out


def test_bad_margins_are_refused(built, tmp_path):
    with pytest.raises(ConfigError, match="no measure 'mcd'"):
        Settings(margins={"mcd": 1.0})
    with pytest.raises(ConfigError, match="a number from 0 up"):
        Settings(margins={"wer": float("nan")})
    with pytest.raises(ConfigError, match="write a measure and a number"):
        main([str(built.folder), "-o", str(tmp_path / "x"), "--margin", "wer"])


def test_a_study_without_figures_is_not_made():
    study = Study("x", "X", "How.", tables=[Table("T", ["a"], [])])
    study.lack("this")
    study.lack("this")
    assert study.markdown().count("this") == 1 and "Not made." in study.markdown() and "| a |" not in study.markdown()


def test_bold_is_what_excludes_zero():
    assert cell({"mean": 1.0, "low": 0.5, "high": 1.5, "failed": 0}, 1, difference=True) == "**1.0 [0.5, 1.5]**"
    assert cell({"mean": 1.0, "low": -0.5, "high": 1.5, "failed": 0}, 1, difference=True) == "1.0 [-0.5, 1.5]"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_names_are_pushed_apart_in_their_order(places):
    found = spread(np.array(sorted(places)), 0.05)
    assert (np.diff(found) >= 0.05 - 1e-3).all()


# -- the report -----------------------------------------------------------------------------------------------------


def test_the_report_shows_studies_and_says_when_they_are_old(built, tmp_path):
    results = built.results()
    assert list(study_parts(results.document, tmp_path / "studies")) == []
    main([str(built.folder), "-o", str(tmp_path / "studies")])
    parts = "".join(study_parts(results.document, tmp_path / "studies"))
    assert "data:image/png;base64," in parts and "Not made. Missing:" in parts and "run them again" not in parts
    changed = {"tokenizers": [*results.document["tokenizers"], about("new", 50.0)]}
    assert "run them again" in "".join(study_parts(changed, tmp_path / "studies"))


def test_levels_stand_in_the_first_cell_too(built):
    built.results()
    html = task_table([row for row in built.summary if row["measure"] == "wer"], object())
    assert f"mini{tag('small', ' 2 levels')}" in html


def test_a_wide_gap_between_bitrates_is_broken():
    near = Series("codec", 0, tuple(Point(rate, 1.0, None, None, "x") for rate in (500, 1000, 4000)))
    far = Series("vectors", 1, (Point(102400, 2.0, None, None, "x"),))
    assert 'class="break"' not in rate_chart("t", "n", [near], 2)
    chart = rate_chart("t", "n", [near, far], 2)
    assert chart.count('class="break"') == 2 and ">100k<" in chart and ">20k<" not in chart


@given(st.floats(-100, 100), st.floats(1e-3, 1000))
def test_values_at_an_axis_are_round_and_within_it(low, width):
    found = round_values(low, low + width)
    assert 2 <= len(found) <= 8
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value in found)
