"""Every measure against the library that others measure it with, to the tolerance stated in its test.

PESQ, STOI and ESTOI stand in test_metrics.py, word and character error rates in test_judge.py.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from speechtok.audio import Audio, read
from speechtok.bench import metrics
from speechtok.bench.codebooks import codebook_usage
from speechtok.bench.metrics import ASKED, MetricError, score
from speechtok.bench.phonetics import joint_counts, phonetic_scores
from speechtok.bench.predictors import DNSMOS_SCORES, dnsmos
from speechtok.bench.suite.robustness import unit_edit_distance
from speechtok.clips import bundled_clips
from speechtok.errors import ConfigError

RATE = 16000


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    speech = read(bundled_clips()[0].path).samples[: 2 * RATE].astype(np.float64)
    return speech, speech + 0.01 * np.random.default_rng(0).standard_normal(len(speech))


def librosa_log_mel(librosa, wave):
    padded = np.pad(wave, 392, mode="reflect")
    spectrum = np.abs(librosa.stft(padded, n_fft=1024, hop_length=240, window="hann", center=False))
    filters = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=80, fmin=0, fmax=8000, htk=True, norm="slaney")
    return np.log(np.maximum(filters @ spectrum, 1e-5)).T


def test_si_sdr_is_that_of_torchmetrics(pair):
    reason = "the reference of SI-SDR; pip install torchmetrics"
    torchmetrics = pytest.importorskip("torchmetrics.functional.audio", reason=reason)
    torch = pytest.importorskip("torch")
    reference, degraded = map(torch.from_numpy, pair)
    theirs = torchmetrics.scale_invariant_signal_distortion_ratio(degraded, reference, zero_mean=True)
    assert metrics.si_sdr(*pair, RATE) == pytest.approx(float(theirs), abs=1e-4)


def test_si_sdr_is_its_formula(pair):
    """Le Roux et al. 2019, equation 3, with means removed: by projection with least squares."""
    reference, degraded = (signal - signal.mean() for signal in pair)
    scale = np.linalg.lstsq(reference[:, None], degraded, rcond=None)[0][0]
    noise = degraded - scale * reference
    expected = 10 * np.log10(np.sum((scale * reference) ** 2) / np.sum(noise**2))
    assert metrics.si_sdr(*pair, RATE) == pytest.approx(expected, abs=1e-9)


def test_mel_distance_is_that_of_librosas_spectra(pair):
    librosa = pytest.importorskip("librosa", reason="the reference of mel spectra; pip install librosa")
    ours = metrics.log_mel(pair[0])
    theirs = librosa_log_mel(librosa, pair[0])
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-4
    expected = np.abs(theirs - librosa_log_mel(librosa, pair[1])).mean()
    assert metrics.mel_distance(*pair, RATE) == pytest.approx(expected, rel=1e-5)


def test_mel_cepstral_distortion_is_that_of_librosas_and_scipys_cepstra(pair):
    librosa = pytest.importorskip("librosa", reason="the reference of mel spectra; pip install librosa")
    fft = pytest.importorskip("scipy.fft", reason="the reference of the cosine transform; pip install scipy")
    first, second = (fft.dct(librosa_log_mel(librosa, signal), axis=1)[:, 1:14] / 80 for signal in pair)
    expected = (10 / np.log(10) * np.sqrt(2 * ((first - second) ** 2).sum(axis=1))).mean()
    assert metrics.mel_cepstral_distortion(*pair, RATE) == pytest.approx(expected, rel=1e-5)


def test_visqol_is_the_package(pair):
    visqol = pytest.importorskip("visqol", reason="the package is not installed; pip install 'speechtok[visqol]'")
    api = visqol.VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    theirs = api.measure_from_arrays(*pair, RATE).moslqo
    assert metrics.visqol(*pair, RATE) == pytest.approx(theirs, abs=1e-6) and 1 < theirs < 5
    with pytest.raises(MetricError, match="silent"):
        metrics.visqol(pair[0], np.zeros(len(pair[0])), RATE)
    assert "more speech" in score("visqol", pair[0][:2000], pair[1][:2000], RATE).failure


def test_visqol_that_is_missing_is_one_line(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "visqol", None)
    assert list(ASKED) == ["visqol"]
    assert "pip install 'speechtok[visqol]'" in score("visqol", *pair, RATE).failure


def test_dnsmos_is_the_package(pair):
    reason = "the package is not installed; pip install 'speechtok[predictors]'"
    theirs = pytest.importorskip("speechmos.dnsmos", reason=reason).run(pair[1], RATE)
    ours = dnsmos(Audio(pair[1].astype(np.float32), RATE))
    for name, their_name in DNSMOS_SCORES.items():
        assert ours[name].value == pytest.approx(float(theirs[their_name]), abs=1e-3)


def test_dnsmos_of_silence_and_without_its_package(pair, monkeypatch):
    silent = dnsmos(Audio(np.zeros(RATE, np.float32), RATE))
    assert [one.failure for one in silent.values()] == ["the recording is silent"] * 4
    monkeypatch.setitem(sys.modules, "speechmos.dnsmos", None)
    with pytest.raises(ConfigError, match=r"pip install 'speechtok\[predictors\]'"):
        dnsmos(Audio(pair[0].astype(np.float32), RATE))


def test_perplexity_is_scipys_entropy():
    stats = pytest.importorskip("scipy.stats", reason="the reference of entropies; pip install scipy")
    codes = np.random.default_rng(0).binomial(15, 0.3, (1, 500))
    (usage,) = codebook_usage([codes], [16])
    entropy = stats.entropy(np.bincount(codes[0], minlength=16), base=2)
    assert usage.perplexity == pytest.approx(2**entropy, rel=1e-9)


def test_pnmi_and_purities_are_those_of_scikit_learn():
    cluster = pytest.importorskip("sklearn.metrics", reason="the reference of PNMI; pip install scikit-learn")
    random = np.random.default_rng(0)
    phones = random.integers(0, 5, 400)
    codes = np.where(random.random(400) < 0.6, phones, random.integers(0, 9, 400))
    found = phonetic_scores(joint_counts(phones, codes))
    table = cluster.cluster.contingency_matrix(phones, codes)
    entropy = -sum(share * np.log(share) for share in np.bincount(phones) / 400)
    assert found.pnmi == pytest.approx(cluster.mutual_info_score(phones, codes) / entropy, abs=1e-9)
    assert found.phone_purity == pytest.approx(table.max(axis=0).sum() / 400, abs=1e-9)
    assert found.cluster_purity == pytest.approx(table.max(axis=1).sum() / 400, abs=1e-9)


def test_pitch_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats", reason="the reference of correlations; pip install scipy")
    parselmouth = pytest.importorskip("parselmouth", reason="pitch needs it; pip install 'speechtok[pitch]'")
    from speechtok.bench.melody import melody_scores

    first = read(bundled_clips()[0].path).resample(RATE)
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(first)).astype(np.float32)
    second = Audio(first.samples + noise, RATE)
    settings = {"time_step": 0.01, "pitch_floor": 65, "pitch_ceiling": 500}
    tracks = [
        parselmouth.Sound(one.samples.astype(np.float64), RATE).to_pitch_ac(**settings).selected_array["frequency"]
        for one in (first, second)
    ]
    both = (tracks[0] > 0) & (tracks[1] > 0)
    expected = stats.pearsonr(*(np.log(track[both]) for track in tracks)).statistic
    found = melody_scores(first, second)
    assert found["pitch_correlation"].value == pytest.approx(expected, abs=1e-3)
    assert found["vde"].value == pytest.approx(np.mean((tracks[0] > 0) != (tracks[1] > 0)), abs=0.01)


def test_unit_edit_distance_is_a_table_of_edits():
    pytest.importorskip("rapidfuzz", reason="edit distances need it; pip install 'speechtok[bench]'")
    random = np.random.default_rng(0)
    for _ in range(20):
        first, second = (random.integers(0, 4, random.integers(1, 15)).tolist() for _ in range(2))
        table = np.zeros((len(first) + 1, len(second) + 1), int)
        table[:, 0], table[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
        for i, one in enumerate(first, 1):
            for j, other in enumerate(second, 1):
                swap = table[i - 1, j - 1] + (one != other)
                table[i, j] = min(swap, table[i - 1, j] + 1, table[i, j - 1] + 1)
        assert unit_edit_distance(first, second) == table[-1, -1] / len(first)
