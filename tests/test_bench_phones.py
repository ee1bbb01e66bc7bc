"""Phonetic scores of tokens and of clustered features: against formulas by hand, and intervals that behave."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from speechtok.audio import Audio, write
from speechtok.bench import phones
from speechtok.bench.phones import fit_units, frames_of, level_streams, load_features, unit_streams
from speechtok.bench.phonetics import SCORES, UtteranceCounts, joint_counts, phonetic_scores
from speechtok.errors import ConfigError
from speechtok.guidance.phones import Segment, read_segments, write_segments
from speechtok.train.data import read_manifest
from tiny import tiny_tokenizer
from tiny_teachers import tiny_hubert

STREAM = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.integers(0, 3)).map(lambda row: [f"P{i}" for i in row]),
        arrays(np.int64, n, elements=st.integers(0, 5)),
    )
)


# -- tables by utterance --------------------------------------------------------------------------------------------


@given(st.lists(STREAM, min_size=1, max_size=5), st.integers(0, 99))
def test_tables_of_drawn_utterances_are_those_of_their_frames(utterances, seed):
    labels, codes = zip(*utterances, strict=True)
    counts = UtteranceCounts(labels, codes)
    assert (counts.table() == joint_counts(np.concatenate(labels), np.concatenate(codes))).all()
    picks = np.random.default_rng(seed).integers(counts.n, size=counts.n)
    drawn = counts.table(np.bincount(picks, minlength=counts.n))
    drawn = drawn[drawn.any(1)][:, drawn.any(0)]
    assert (drawn == joint_counts(*(np.concatenate([rows[i] for i in picks]) for rows in (labels, codes)))).all()


@given(st.lists(STREAM, min_size=2, max_size=5))
def test_intervals_hold_the_score_and_repeat(utterances):
    labels, codes = zip(*utterances, strict=True)
    counts = UtteranceCounts(labels, codes)
    estimates = counts.estimates()
    assert estimates == UtteranceCounts(labels, codes).estimates()
    for name in SCORES:
        assert estimates[name].mean == pytest.approx(getattr(phonetic_scores(counts.table()), name))
        assert 0 <= estimates[name].low <= estimates[name].mean <= estimates[name].high <= 1
        assert estimates[name].n == len(utterances)


def test_a_stream_does_not_differ_from_itself_and_a_better_one_is_better():
    random = np.random.default_rng(0)
    labels = [[f"P{i}" for i in random.integers(0, 4, 60)] for _ in range(12)]
    right = [np.array([int(label[1]) for label in row]) for row in labels]
    noisy = [np.where(random.random(60) < 0.3, random.integers(0, 4, 60), row) for row in right]
    good, bad = UtteranceCounts(labels, right), UtteranceCounts(labels, noisy)
    assert good.estimates()["pnmi"].mean == pytest.approx(1)
    nothing = good.differences(good)["pnmi"]
    assert (nothing.mean, nothing.low, nothing.high) == (0, 0, 0)
    better = good.differences(bad)["pnmi"]
    assert 0 < better.low <= better.mean <= better.high and better.n == 12


def test_one_utterance_has_no_interval_and_unequal_ones_are_refused():
    one = UtteranceCounts([["A", "B"]], [np.array([0, 1])])
    assert (one.estimates()["pnmi"].mean, one.estimates()["pnmi"].low) == (pytest.approx(1), None)
    with pytest.raises(ValueError, match="as many"):
        UtteranceCounts([["A"]], [np.array([0, 1])])
    with pytest.raises(ValueError, match="paired"):
        one.differences(UtteranceCounts([["A"], ["B"]], [np.array([0]), np.array([1])]))


# -- over a manifest ------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path):
    """Six recordings of low and high tones, each named by a phone, and their segments."""
    time = np.arange(4000) / 16000
    rows, segments = ["path\tsplit"], {}
    for i in range(6):
        tones = [300, 1800] if i % 2 else [1800, 300]
        wave = np.concatenate([np.sin(2 * np.pi * (tone + 10 * i) * time) for tone in tones])
        write(tmp_path / f"{i}.wav", Audio(0.3 * wave.astype(np.float32), 16000))
        rows.append(f"{i}.wav\t{'train' if i > 3 else 'dev'}")
        names = ["LOW" if tone < 1000 else "HIGH" for tone in tones]
        segments[str(i)] = [Segment(0.0, 0.25, names[0]), Segment(0.25, 0.5, names[1])]
    (tmp_path / "data.tsv").write_text("\n".join(rows) + "\n")
    write_segments(tmp_path / "phones.tsv", segments)
    return tmp_path


def streams_of(corpus, kind):
    utterances, segments = read_manifest(corpus / "data.tsv", "dev"), read_segments(corpus / "phones.tsv")
    if kind == "levels":
        return level_streams(tiny_tokenizer(), utterances, segments, corpus)
    features, _ = load_features("mfcc")
    centres = fit_units(features, read_manifest(corpus / "data.tsv", "train"), 2)
    return unit_streams(features, centres, utterances, segments, corpus)


@pytest.mark.parametrize("kind", ["levels", "units"])
def test_bad_utterances_are_counted_and_change_no_score(corpus, kind):
    clean = streams_of(corpus, kind).scores(0)
    assert (clean["n"], clean["failed"], clean["phones"]) == (4, 0, 2)
    (corpus / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    write(corpus / "strange.wav", Audio(np.ones(100, np.float32), 16000))
    with (corpus / "data.tsv").open("a") as file:
        file.write("broken.wav\tdev\nstrange.wav\tdev\n")
    with (corpus / "phones.tsv").open("a") as file:
        file.write("broken\t0.00\t0.50\tLOW\n")
    spoilt = streams_of(corpus, kind).scores(0)
    assert spoilt["reasons"] == {"the file cannot be read": 1, "no alignment": 1}
    for name in SCORES:
        assert spoilt[name]["failed"] == 2
        assert {k: spoilt[name][k] for k in ("mean", "low", "high", "n")} == {
            k: clean[name][k] for k in ("mean", "low", "high", "n")
        }


def test_two_clusters_of_mfcc_tell_two_tones_apart(corpus):
    assert streams_of(corpus, "units").scores(0)["phone_purity"]["mean"] > 0.9


def test_what_is_shorter_than_a_frame_is_a_counted_failure(corpus):
    write(corpus / "0.wav", Audio(np.ones(100, np.float32), 16000))
    assert streams_of(corpus, "units").scores(0)["reasons"] == {"it is shorter than one frame of the features": 1}


def test_every_level_is_measured_on_the_same_frames(corpus):
    found = streams_of(corpus, "levels")
    tokenizer = tiny_tokenizer()
    assert [codes.shape for codes in found.codes] == [(4, 100)] * 4
    assert tokenizer.frame_rate == 200 and found.phones[1][49:51] == ["LOW", "HIGH"]
    scores = found.scores(2)
    table = joint_counts(np.concatenate(found.phones), np.concatenate([codes[2] for codes in found.codes]))
    assert scores["pnmi"]["mean"] == pytest.approx(phonetic_scores(table).pnmi)


def test_features_have_as_many_rows_as_their_law_says():
    features, name = load_features("mfcc")
    assert frames_of(features, Audio(np.ones(16000, np.float32), 16000)).shape == (50, 39) and name == "mfcc"


# -- the command ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "streams"),
    [
        pytest.param(["--level", "0", "3"], ["level 0", "level 3"], id="levels"),
        pytest.param(["--features", "mfcc", "--clusters", "3"], ["k-means 3"], id="units"),
        pytest.param(["--features", "HUBERT", "--layer", "1", "--clusters", "3"], ["k-means 3"], id="layer"),
        pytest.param(["--features", "HUBERT", "--layer", "average", "--clusters", "3"], ["k-means 3"], id="average"),
    ],
)
def test_the_command_writes_scores_and_settings(corpus, monkeypatch, capsys, tmp_path_factory, arguments, streams):
    monkeypatch.setattr(phones.speechtok, "load", lambda name: tiny_tokenizer(), raising=False)
    if "HUBERT" in arguments:
        folder = str(tiny_hubert(tmp_path_factory.mktemp("hubert")))
        arguments = [folder if word == "HUBERT" else word for word in arguments]
    out = corpus / "out.json"
    places = ["--data", str(corpus / "data.tsv"), "--phones", str(corpus / "phones.tsv"), "-o", str(out)]
    assert phones.main([*places, *arguments]) == 0
    found = json.loads(out.read_text())
    assert [row["stream"] for row in found["summary"]] == streams
    assert all(0 <= row["pnmi"]["low"] <= row["pnmi"]["high"] <= 1 and row["n"] == 4 for row in found["summary"])
    if "--layer" in arguments:
        assert found["summary"][0]["tokenizer"] == f"{folder}, layer {arguments[3]}"
    assert found["settings"]["split"] == "dev" and "torch" in found["versions"]
    assert "pnmi" in capsys.readouterr().out


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(["--level", "9"], id="no-such-level"),
        pytest.param(["--split", "none"], id="no-such-split"),
        pytest.param(["--phones", "missing.tsv"], id="no-phones"),
    ],
)
def test_bad_input_is_one_line(corpus, monkeypatch, bad):
    monkeypatch.setattr(phones.speechtok, "load", lambda name: tiny_tokenizer(), raising=False)
    with pytest.raises(ConfigError) as caught:
        phones.main(["--data", str(corpus / "data.tsv"), "--phones", str(corpus / "phones.tsv"), *bad])
    assert "\n" not in str(caught.value)
