"""Pitch errors are their definitions, frame by frame, and a melody that is not there is a failure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speechtok.audio import Audio
from speechtok.bench.melody import MEASURES, frame_error, gross_pitch_error, melody_scores, voicing_decision_error
from speechtok.bench.metrics import MetricError

NAN = math.nan
REFERENCE = np.array([100.0, 100.0, 100.0, NAN, NAN, 200.0, 200.0, NAN])
DEGRADED = np.array([100.0, 121.0, 119.0, NAN, 150.0, NAN, 90.0, NAN])


def counted(reference, degraded):
    """GPE, VDE and FFE by counting, one frame after the other."""
    both = gross = decisions = 0
    for a, b in zip(reference, degraded, strict=True):
        voiced = not math.isnan(a), not math.isnan(b)
        decisions += voiced[0] != voiced[1]
        if all(voiced):
            both += 1
            gross += abs(a - b) / a > 0.2
    return gross / both, decisions / len(reference), (gross + decisions) / len(reference)


def test_errors_are_counted_by_frame():
    assert gross_pitch_error(REFERENCE, DEGRADED) == pytest.approx(2 / 4)
    assert voicing_decision_error(REFERENCE, DEGRADED) == pytest.approx(2 / 8)
    assert frame_error(REFERENCE, DEGRADED) == pytest.approx(4 / 8)


def test_errors_agree_with_counting_on_random_contours():
    random = np.random.default_rng(0)
    for _ in range(20):
        pair = random.uniform(80, 120, (2, 50))
        pair[random.random((2, 50)) < 0.3] = NAN
        found = [function(*pair) for function in (gross_pitch_error, voicing_decision_error, frame_error)]
        assert found == pytest.approx(counted(*pair))


def test_the_shorter_contour_decides():
    assert frame_error(REFERENCE, DEGRADED[:3]) == frame_error(REFERENCE[:3], DEGRADED[:3])


def test_no_common_voice_has_no_gross_error():
    with pytest.raises(MetricError, match="voiced in both"):
        gross_pitch_error(REFERENCE, np.full(8, NAN))
    assert voicing_decision_error(REFERENCE, np.full(8, NAN)) == pytest.approx(5 / 8)


def test_recordings_are_scored_by_their_pitch(speech):
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    voice = speech(2.0)
    same = melody_scores(voice, voice)
    assert {name: score.value for name, score in same.items()} == pytest.approx(
        {"gpe": 0, "vde": 0, "ffe": 0, "pitch_correlation": 1}
    )
    other = melody_scores(voice, speech(2.0, seed=3))
    assert other["ffe"].value > 0.2
    silent = melody_scores(voice, Audio(np.zeros(32000, np.float32), 16000))
    assert silent["gpe"].value is None and "voiced in both" in silent["gpe"].failure
    assert 0 < silent["vde"].value < 1


def test_what_is_too_short_has_no_melody():
    pytest.importorskip("parselmouth", reason="praat-parselmouth is not installed")
    short = Audio(np.zeros(10, np.float32), 16000)
    scores = melody_scores(short, short)
    assert set(scores) == set(MEASURES) and not any(score.value for score in scores.values())
    assert all(score.failure for score in scores.values())
