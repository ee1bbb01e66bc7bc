"""Melody: whether the pitch of two recordings rises and falls together."""

from __future__ import annotations

import numpy as np

from speechtok.audio import Audio
from speechtok.bench.metrics import MetricError, Score
from speechtok.pitch import pitch_track

RATE = 16000
FEWEST = 20
"""Frames voiced in both that a correlation needs: 0.2 s."""


def pitch(audio: Audio) -> np.ndarray:
    """Pitch in Hz every 10 ms ``[M]``, NaN where there is no voice (Praat's autocorrelation method).

    Raises:
        ConfigError: praat-parselmouth is not installed.
        MetricError: too short for one frame.
    """
    _, hertz = pitch_track(audio.resample(RATE).samples, RATE)
    if not len(hertz):
        raise MetricError("it is too short to have a pitch")
    return np.where(hertz > 0, hertz, np.nan)


def pitch_correlation(first: Audio, second: Audio) -> Score:
    """Pearson correlation of log-pitch over the frames voiced in both, -1 to 1, or why there is none.

    The two must run in step, as a recording and its conversion do.
    """
    try:
        return Score("pitch_correlation", contour_correlation(pitch(first), pitch(second)))
    except MetricError as error:
        return Score("pitch_correlation", None, str(error))


def contour_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of two log-pitch contours in Hz ``[M]``, NaN where there is no voice.

    Raises:
        MetricError: too few frames are voiced in both, or one pitch never changes.
    """
    frames = min(len(first), len(second))
    pairs = np.log(np.stack([first[:frames], second[:frames]]))
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < FEWEST:
        raise MetricError(f"fewer than {FEWEST} frames are voiced in both")
    if not pairs.std(axis=1).all():
        raise MetricError("a pitch that never changes correlates with nothing")
    return float(np.corrcoef(pairs)[0, 1])
