"""Metrics agree with their definitions, failures are counted, and intervals behave like intervals."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechtok.audio import Audio, read, write
from speechtok.bench import metrics, reconstruction
from speechtok.bench.codebooks import codebook_usage, entropy_bitrate
from speechtok.bench.metrics import METRICS, UNREADABLE, MetricError, Score, score
from speechtok.bench.scoring import Scorer
from speechtok.bench.statistics import bootstrap_mean, paired_difference, summarize
from speechtok.demo import bundled_clips
from speechtok.errors import ConfigError
from tiny import tiny_tokenizer

RATE = 16000
QUICK = settings(deadline=None, max_examples=20)


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    speech = read(bundled_clips()[0].path).samples[: 2 * RATE]
    return speech, speech + 0.01 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)


def test_pesq_is_the_package_in_wide_band(pair):
    pesq = pytest.importorskip("pesq", reason="the package pesq is not installed")
    assert metrics.pesq_wb(*pair, RATE) == pytest.approx(pesq.pesq(RATE, *pair, "wb"), abs=1e-4)


@pytest.mark.parametrize(("name", "extended"), [("stoi", False), ("estoi", True)])
def test_stoi_is_the_package(pair, name, extended):
    pystoi = pytest.importorskip("pystoi", reason="the package pystoi is not installed")
    assert METRICS[name].function(*pair, RATE) == pytest.approx(pystoi.stoi(*pair, RATE, extended=extended), abs=1e-6)


def test_mel_distance_is_the_first_mel_scale_of_training(pair):
    torch = pytest.importorskip("torch")
    from speechtok.nn.mel import LogMel

    layer = LogMel(RATE, 1024, 240, 80)
    first, second = (layer(torch.tensor(signal)[None])[0] for signal in pair)
    assert metrics.mel_distance(*pair, RATE) == pytest.approx(float((first - second).abs().mean()), rel=1e-3)


def test_mel_cepstra_are_the_cosine_transform(pair):
    fft = pytest.importorskip("scipy.fft")
    log_mels = metrics.log_mel(pair[0])
    expected = fft.dct(log_mels, type=2, axis=1)[:, 1:14] / log_mels.shape[1]
    assert metrics.mel_cepstra(log_mels) == pytest.approx(expected, abs=1e-9)


def test_mel_cepstral_distortion_is_kubicheks_formula_without_the_level(pair):
    first, second = (metrics.mel_cepstra(metrics.log_mel(signal.astype(np.float64))) for signal in pair)
    frames = [10 / math.log(10) * math.sqrt(2 * sum((a - b) ** 2)) for a, b in zip(first, second, strict=True)]
    assert metrics.mel_cepstral_distortion(*pair, RATE) == pytest.approx(np.mean(frames), rel=1e-9)
    noise = np.random.default_rng(0).standard_normal(RATE)
    assert metrics.mel_cepstral_distortion(noise, 0.5 * noise, RATE) == pytest.approx(0, abs=1e-9)
    assert metrics.mel_cepstral_distortion(*pair, RATE) > 0


def test_mel_cepstral_distortion_of_a_tilt_is_its_size_in_decibels():
    bands = np.cos(np.pi * (np.arange(80) + 0.5) / 80)
    tilted = np.log(10) / 20 * 6 * np.sqrt(2) * bands[None]  # 6 dB as root mean square over the bands
    assert 10 / np.log(10) * np.sqrt(2 * (metrics.mel_cepstra(tilted) ** 2).sum()) == pytest.approx(6)


@pytest.mark.parametrize("name", ["stoi", "estoi", "si_sdr", "pesq_wb"])
def test_more_noise_is_worse(pair, name):
    pytest.importorskip({"si_sdr": "numpy", "pesq_wb": "pesq"}.get(name, "pystoi"), reason="its package is missing")
    speech, noisy = pair
    values = [METRICS[name].function(speech, speech + k * (noisy - speech), RATE) for k in (0.3, 1, 3)]
    assert values == sorted(values, reverse=True)


def test_mel_distance_grows_with_noise_and_is_zero_for_equal_signals(pair):
    speech, noisy = pair
    assert metrics.mel_distance(speech, speech, RATE) == 0
    assert 0 < metrics.mel_distance(speech, noisy, RATE) < metrics.mel_distance(speech, 2 * noisy - speech, RATE)


@QUICK
@given(scale=st.floats(0.01, 100), sign=st.sampled_from([1, -1]), offset=st.floats(-1, 1), seed=st.integers(0, 99))
def test_si_sdr_ignores_gain_and_offset(scale, sign, offset, seed):
    draws = np.random.default_rng(seed)
    reference = draws.standard_normal(800)
    degraded = reference + 0.3 * draws.standard_normal(800)
    plain = metrics.si_sdr(reference, degraded, RATE)
    assert metrics.si_sdr(reference, sign * scale * degraded + offset, RATE) == pytest.approx(plain, abs=1e-6)
    assert metrics.si_sdr(sign * scale * reference + offset, degraded, RATE) == pytest.approx(plain, abs=1e-6)


def test_si_sdr_of_orthogonal_noise_is_the_ratio_of_powers():
    time = np.arange(RATE) / RATE
    tone, other = np.sin(2 * np.pi * 100 * time), np.sin(2 * np.pi * 200 * time)
    assert metrics.si_sdr(tone, tone + 0.1 * other, RATE) == pytest.approx(20, abs=1e-6)


@pytest.mark.parametrize("name", list(METRICS))
def test_other_rates_are_heard_at_16_khz(pair, name):
    pytest.importorskip({"stoi": "pystoi", "estoi": "pystoi", "pesq_wb": "pesq"}.get(name, "numpy"))
    up = [Audio(signal, RATE).resample(24000).samples for signal in pair]
    there, here = METRICS[name].function(*up, 24000), METRICS[name].function(*pair, RATE)
    assert there == pytest.approx(here, rel=0.05, abs=0.3 if name == "si_sdr" else 0.02)


UNRATEABLE = {
    "lengths differ": (np.ones(RATE), np.ones(RATE - 1), "equally long"),
    "two channels": (np.ones((2, RATE)), np.ones((2, RATE)), "mono"),
    "not a number": (np.ones(RATE), np.full(RATE, np.nan), "finite"),
    "nothing": (np.ones(0), np.ones(0), "equally long"),
}


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("case", list(UNRATEABLE))
def test_pairs_without_a_meaning_are_refused(name, case):
    reference, degraded, reason = UNRATEABLE[case]
    with pytest.raises(MetricError, match=reason):
        METRICS[name].function(reference, degraded, RATE)


@pytest.mark.parametrize("name", ["pesq_wb", "stoi", "estoi", "si_sdr"])
@pytest.mark.parametrize("silent", ["reference", "degraded"])
def test_silence_has_no_score(pair, name, silent):
    zeros = np.zeros(len(pair[0]))
    result = score(name, *((zeros, pair[0]) if silent == "reference" else (pair[0], zeros)), RATE)
    assert result.value is None
    assert "silent" in result.failure or "not installed" in result.failure


def test_too_little_speech_for_stoi_is_a_failure_not_a_small_number(pair):
    pytest.importorskip("pystoi", reason="the package pystoi is not installed")
    with pytest.raises(MetricError, match=r"0\.4 s"):
        metrics.stoi(pair[0][:3000], pair[1][:3000], RATE)


def test_equal_signals_have_no_finite_si_sdr(pair):
    with pytest.raises(MetricError, match="infinite"):
        metrics.si_sdr(pair[0], 3 * pair[0].astype(np.float64), RATE)


@pytest.mark.parametrize(("name", "package"), [("pesq_wb", "pesq"), ("stoi", "pystoi")])
def test_a_missing_package_is_one_line_with_the_fix(pair, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = score(name, *pair, RATE)
    assert result.value is None
    assert f"{package} is not installed" in result.failure and "pip install" in result.failure
    assert "\n" not in result.failure


def test_failures_are_counted_and_left_out_of_the_mean():
    estimate = summarize(
        [Score("stoi", 0.5), Score("stoi", None, "silent"), Score("stoi", 0.7), Score("stoi", None, "silent")]
    )
    assert (estimate.mean, estimate.n, estimate.failed) == (pytest.approx(0.6), 2, 2)
    assert estimate.reasons == (("silent", 2),)
    nothing = summarize([Score("stoi", None, "silent")])
    assert (nothing.mean, nothing.low, nothing.n, nothing.failed) == (None, None, 0, 1)


def test_processes_give_the_same_scores_and_the_same_failures(pair):
    with Scorer(("mel_distance", "si_sdr")) as here, Scorer(("mel_distance", "si_sdr"), processes=1) as there:
        for degraded in (pair[1], np.zeros_like(pair[1])):
            ours, theirs = (scorer.submit(pair[0], degraded, RATE).result() for scorer in (here, there))
            assert ours.keys() == theirs.keys()
            for name, score in ours.items():
                # the last digit of a sum may depend on where in memory the numbers lie
                assert score.failure or score.value == pytest.approx(theirs[name].value, rel=1e-12)
            assert [score.failure for score in ours.values()] == [score.failure for score in theirs.values()]
    assert ours["si_sdr"].value is None


def test_an_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match="mos"):
        Scorer(("mos",))


@QUICK
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 5))
def test_interval_holds_the_mean_and_stays_inside_the_range(values, seed):
    estimate = bootstrap_mean(values, seed=seed)
    slack = 1e-9 + 1e-9 * max(map(abs, values))
    assert min(values) - slack <= estimate.low <= estimate.high <= max(values) + slack
    assert estimate == bootstrap_mean(values, seed=seed)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    draws = np.random.default_rng(3).standard_normal((200, 40))
    estimates = [bootstrap_mean(row, resamples=400) for row in draws]
    assert 0.88 <= np.mean([one.low <= 0 <= one.high for one in estimates]) <= 0.99


def test_one_value_says_nothing_about_spread():
    assert bootstrap_mean([2.0]) == bootstrap_mean([2.0], seed=9)
    assert bootstrap_mean([2.0]).low is None


def test_pairing_finds_a_small_difference_that_the_spread_would_hide():
    draws = np.random.default_rng(0)
    first = draws.normal(0, 10, 60)
    second = first - 0.5 + draws.normal(0, 0.2, 60)
    difference = paired_difference([*first, None], [*second, 1.0])
    assert 0.4 < difference.low <= difference.mean <= difference.high < 0.6
    assert (difference.n, difference.failed) == (60, 1)


def test_usage_of_a_uniform_a_constant_and_a_half_used_codebook():
    codes = np.stack([np.arange(64) % 16, np.zeros(64, int), np.arange(64) % 8])
    uniform, constant, half = codebook_usage([codes[:, :10], codes[:, 10:]], (16, 16, 16))
    assert (uniform.usage, uniform.perplexity, uniform.normalised_entropy) == pytest.approx((1, 16, 1))
    assert (constant.usage, constant.perplexity, constant.entropy) == pytest.approx((1 / 16, 1, 0))
    assert (half.usage, half.perplexity, half.normalised_entropy) == pytest.approx((0.5, 8, 0.75))
    assert entropy_bitrate([uniform, constant, half], 50) == pytest.approx(50 * (4 + 0 + 3))


@pytest.fixture
def manifest(tmp_path):
    for number in range(3):
        samples = np.random.default_rng(number).standard_normal(9000).astype(np.float32) * 0.1
        write(tmp_path / f"{number}.wav", Audio(samples, 8000))
    (tmp_path / "data.tsv").write_text("path\tsplit\tspeaker\n0.wav\ttest\ta\n1.wav\ttest\tb\n2.wav\tdev\tc\n")
    return tmp_path / "data.tsv"


def test_reconstruction_writes_rows_summary_and_usage(manifest, monkeypatch, capsys):
    monkeypatch.setattr(reconstruction.speechtok, "load", lambda name: tiny_tokenizer(), raising=False)
    out = manifest.parent / "out.json"
    arguments = f"--data {manifest} --levels 1 4 --metrics mel_distance si_sdr --processes 0 --usage-split dev -o {out}"
    assert reconstruction.main(arguments.split()) == 0
    result = json.loads(out.read_text())
    assert [row["levels"] for row in result["summary"]] == [1, 4]
    assert {row["tokenizer"] for row in result["summary"]} == {"tiny-frame"}
    assert [(row["utterance"], row["levels"]) for row in result["utterances"]] == [
        ("0", 1),
        ("0", 4),
        ("1", 1),
        ("1", 4),
    ]
    mean = np.mean([row["mel_distance"] for row in result["utterances"] if row["levels"] == 4])
    assert result["summary"][1]["mel_distance"]["mean"] == pytest.approx(mean)
    assert result["summary"][1]["bitrate"] == pytest.approx(200 * 4 * math.log2(32))
    assert result["split_usage"]["levels"][0]["frames"] == 225
    assert "mel distance" in capsys.readouterr().out


def test_an_unreadable_file_is_counted_and_changes_no_mean(manifest, monkeypatch, capsys):
    monkeypatch.setattr(reconstruction.speechtok, "load", lambda name: tiny_tokenizer(), raising=False)
    out = manifest.parent / "out.json"
    arguments = ["--data", str(manifest), "--metrics", "mel_distance", "--usage-split", "test", "-o", str(out)]
    arguments += ["--levels", "1", "4", "--processes", "0"]
    assert reconstruction.main(arguments) == 0
    clean = json.loads(out.read_text())
    (manifest.parent / "broken.wav").write_bytes(b"RIFF nothing of the kind")
    manifest.write_text(manifest.read_text().replace("speaker\n", "speaker\nbroken.wav\ttest\ta\n"))
    assert reconstruction.main(arguments) == 0
    spoilt = json.loads(out.read_text())
    assert (clean["n"], clean["failed"], spoilt["n"], spoilt["failed"]) == (2, 0, 2, 1)
    assert spoilt["split_usage"] == clean["split_usage"] | {"failed": 1} and spoilt["seconds"] == clean["seconds"]
    for before, after in zip(clean["summary"], spoilt["summary"], strict=True):
        counted = {"failed": 1, "reasons": {UNREADABLE: 1}}
        assert after["mel_distance"] == before["mel_distance"] | counted
    assert spoilt["utterances"][0]["failures"] == {"mel_distance": UNREADABLE} and len(spoilt["utterances"]) == 6
    assert f"2 not measured, {UNREADABLE}" in capsys.readouterr().out
    manifest.write_text("path\tsplit\tspeaker\nbroken.wav\ttest\ta\n")
    assert reconstruction.main(arguments) == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("bad", ["--split none", "--levels 9", "--levels 0", "--data missing.tsv"])
def test_reconstruction_reports_bad_input_in_one_line(manifest, monkeypatch, capsys, bad):
    monkeypatch.setattr(reconstruction.speechtok, "load", lambda name: tiny_tokenizer(), raising=False)
    assert reconstruction.main(["--data", str(manifest), *bad.split()]) == 2
    assert capsys.readouterr().err.count("\n") == 1
