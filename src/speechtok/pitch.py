"""The pitch of a signal, by Praat: for training and for measuring, never for encoding or decoding."""

from __future__ import annotations

import numpy as np

from speechtok.errors import ConfigError

STEP, FLOOR, CEILING = 0.01, 65.0, 500.0
"""Seconds between frames, and the lowest and highest pitch looked for, in Hz."""


def pitch_track(samples: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds and pitch in Hz ``[M]`` of ``samples[T]``, 0 where there is no voice (autocorrelation method).

    Both are empty where the signal is too short for one frame.

    Raises:
        ConfigError: praat-parselmouth is not installed.
    """
    try:
        import parselmouth
    except ImportError as error:
        raise ConfigError("pitch needs praat-parselmouth; pip install 'speechtok[pitch]'") from error
    try:
        found = parselmouth.Sound(samples.astype(np.float64), rate).to_pitch_ac(
            time_step=STEP, pitch_floor=FLOOR, pitch_ceiling=CEILING
        )  # fmt: skip
    except parselmouth.PraatError:  # which also refuses what is shorter than three periods of the lowest pitch
        return np.empty(0), np.empty(0)
    return found.xs(), found.selected_array["frequency"]
