"""Voicing, pitch and energy of every frame: what a vocoder with a prosody branch learns to foretell (CTX-vec2wav)."""

from __future__ import annotations

import numpy as np

from speechtok.pitch import pitch_track

MIDDLE = 150.0
"""Pitch in Hz that counts as 0."""
QUIET = 1e-3
"""Added to the root mean square before its logarithm."""


def prosody(samples: np.ndarray, rate: int, hop: int) -> np.ndarray:
    """Voicing (0 or 1), log-pitch and log-energy of the frames of ``samples[T]``: float32 ``[ceil(T / hop), 3]``.

    Pitch is Praat's (autocorrelation), as the natural logarithm over ``MIDDLE``, and goes straight from one voiced
    frame to the next where there is none; energy is the logarithm of the frame's root mean square plus 4.

    Raises:
        ConfigError: praat-parselmouth is not installed.
    """
    frames = -(-len(samples) // hop)
    padded = np.pad(samples, (0, frames * hop - len(samples))).reshape(frames, hop)
    energy = np.log(np.sqrt((padded.astype(np.float64) ** 2).mean(1)) + QUIET) + 4
    voiced, pitch = _pitch(samples, rate, (np.arange(frames) + 0.5) * hop / rate)
    return np.stack([voiced, pitch, energy], 1).astype(np.float32)


def _pitch(samples: np.ndarray, rate: int, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether there is voice at ``times[N]`` in seconds, and log-pitch there."""
    when, hertz = pitch_track(samples, rate)
    here = hertz[np.abs(when[None] - times[:, None]).argmin(1)] if len(when) else np.zeros(len(times))
    voiced = here > 0
    if not voiced.any():
        return np.zeros(len(times)), np.zeros(len(times))
    return voiced.astype(np.float64), np.interp(times, times[voiced], np.log(here[voiced] / MIDDLE))
