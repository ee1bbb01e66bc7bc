"""How well a reconstruction keeps the melody: errors of pitch and of voicing, frame by frame.

Sources: gross pitch error after Nakatani et al. 2008 (20 % of the pitch), voicing decision error, and their union over
all frames, the F0 frame error of Chu and Alwan 2009. The pitch is Praat's, as ``pitch`` follows it, on both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from speechtok.audio import Audio
from speechtok.bench.metrics import MetricError, Score
from speechtok.bench.pitch import contour_correlation, pitch

Contours = Callable[[np.ndarray, np.ndarray], float]
GROSS = 0.2
"""Share of the pitch beyond which a deviation is gross."""
MEASURES = ("gpe", "vde", "ffe", "pitch_correlation")


def melody_scores(reference: Audio, degraded: Audio) -> dict[str, Score]:
    """``MEASURES`` of two recordings that run in step, each a value or the reason why there is none.

    Raises:
        ConfigError: praat-parselmouth is not installed.
    """
    try:
        contours = pitch(reference), pitch(degraded)
    except MetricError as error:
        return {name: Score(name, None, str(error)) for name in MEASURES}
    functions = (gross_pitch_error, voicing_decision_error, frame_error, contour_correlation)
    return {name: _score(name, function, *contours) for name, function in zip(MEASURES, functions, strict=True)}


def gross_pitch_error(reference: np.ndarray, degraded: np.ndarray) -> float:
    """GPE: share of the frames voiced in both whose pitch is more than 20 % off, 0 to 1; lower is better.

    Args:
        reference: pitch in Hz ``[M]``, NaN where there is no voice; the shorter contour decides how many frames count.
        degraded: the same.

    Raises:
        MetricError: no frame is voiced in both.
    """
    reference, degraded = _in_step(reference, degraded)
    both = np.isfinite(reference) & np.isfinite(degraded)
    if not both.any():
        raise MetricError("no frame is voiced in both")
    return float(_gross(reference[both], degraded[both]).mean())


def voicing_decision_error(reference: np.ndarray, degraded: np.ndarray) -> float:
    """VDE: share of all frames that are voiced in one contour only, 0 to 1; lower is better. Arguments as above."""
    reference, degraded = _in_step(reference, degraded)
    return float((np.isfinite(reference) != np.isfinite(degraded)).mean())


def frame_error(reference: np.ndarray, degraded: np.ndarray) -> float:
    """FFE: share of all frames with a gross error or a wrong voicing decision, 0 to 1; lower is better."""
    reference, degraded = _in_step(reference, degraded)
    wrong = np.isfinite(reference) != np.isfinite(degraded)
    both = np.isfinite(reference) & np.isfinite(degraded)
    wrong[both] = _gross(reference[both], degraded[both])
    return float(wrong.mean())


def _gross(reference: np.ndarray, degraded: np.ndarray) -> np.ndarray:
    return np.abs(degraded - reference) > GROSS * reference


def _in_step(reference: np.ndarray, degraded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frames = min(len(reference), len(degraded))
    if not frames:
        raise MetricError("it is too short to have a pitch")
    return reference[:frames], degraded[:frames]


def _score(name: str, function: Contours, reference: np.ndarray, degraded: np.ndarray) -> Score:
    try:
        return Score(name, function(reference, degraded))
    except MetricError as error:
        return Score(name, None, str(error))
