"""How near a reconstruction is to its original. Numpy in, one float out, and an error where there is no number.

Every function takes ``reference[T]``, ``degraded[T]`` (float, mono, equally long, aligned) and their sample rate.
No value is ever made up: where a metric is not defined for a pair (silence, too little speech, a package that is
missing) ``MetricError`` says why, and ``score`` turns that into a record that can be counted.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import soxr

from speechtok.errors import SpeechtokError
from speechtok.nn.melscale import mel_filters

RATE = 16000
"""Rate at which PESQ-WB, STOI, ESTOI and the mel distance hear both signals."""
UNREADABLE = "the file cannot be read"
"""Why a recording that is no audio has no number."""
MEL_FFT, MEL_HOP, MEL_BANDS, MEL_FLOOR = 1024, 240, 80, 1e-5
MEL_CEPSTRA = 13
"""Coefficients of the mel-cepstral distortion, the first one left out."""


class MetricError(SpeechtokError):
    """There is no such number for this pair of signals, or its package is not installed."""


def pesq_wb(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """Wide-band PESQ, MOS-LQO from about 1.0 to 4.64 (ITU-T P.862.2, package ``pesq``); higher is better.

    Raises:
        MetricError: signals that do not match, no speech found, too short, or the package is missing.
    """
    reference, degraded = _at_16k(*_pair(reference, degraded), rate)
    package = _optional("pesq", extra="pesq")
    _needs_sound("PESQ", reference, degraded)
    try:
        return float(package.pesq(RATE, reference, degraded, "wb"))
    except package.PesqError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise MetricError(f"PESQ cannot rate this pair: {reason}") from error


def stoi(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility, up to 1 (Taal et al. 2011, package ``pystoi``); higher is better.

    Raises:
        MetricError: signals that do not match, less than 0.4 s of speech, or the package is missing.
    """
    return _stoi(reference, degraded, rate, extended=False)


def estoi(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """Extended STOI (Jensen and Taal 2016, package ``pystoi``); higher is better.

    Raises:
        MetricError: as for ``stoi``.
    """
    return _stoi(reference, degraded, rate, extended=True)


def si_sdr(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), means removed; higher is better.

    It compares waveforms, so a vocoder that invents its phase scores low however good it sounds.

    Raises:
        MetricError: signals that do not match, a constant one, or two that are equal up to scale (infinite).
    """
    reference, degraded = _pair(reference, degraded)
    reference, degraded = reference - reference.mean(), degraded - degraded.mean()
    _needs_sound("SI-SDR", reference, degraded)
    target = reference * (degraded @ reference) / (reference @ reference)
    signal, noise = float(target @ target), float(np.sum((degraded - target) ** 2))
    if noise <= signal * 1e-28:  # nothing but rounding is left
        raise MetricError("SI-SDR is infinite: the signals are equal up to scale")
    if signal == 0:
        raise MetricError("SI-SDR is minus infinity: the signals are orthogonal")
    return 10 * float(np.log10(signal / noise))


def mel_distance(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """Mean absolute difference of natural-log mel magnitudes; lower is better.

    Both at 16 kHz, Hann windows of 1024 every 240 samples, ends reflected by 392 and not centred, magnitude, 80 HTK
    mel bands with Slaney norm from 0 to 8 kHz, clamped at 1e-5 (the first mel scale of SpeechTokenizer's loss).

    Raises:
        MetricError: signals that do not match, or shorter than 393 samples at 16 kHz.
    """
    return float(np.abs(np.subtract(*map(log_mel, _at_16k(*_pair(reference, degraded), rate)))).mean())


def log_mel(wave: np.ndarray) -> np.ndarray:
    """``wave[T]`` at 16 kHz -> natural-log mel magnitudes ``[T // 240, 80]``; see ``mel_distance``."""
    pad = (MEL_FFT - MEL_HOP) // 2
    if len(wave) <= pad:
        raise MetricError(f"the mel distance needs more than {pad} samples at {RATE} Hz, this signal has {len(wave)}")
    window, filters = _mel_tables()
    padded = np.pad(wave, pad, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, MEL_FFT)[::MEL_HOP]
    return np.log(np.maximum(np.abs(np.fft.rfft(frames * window)) @ filters, MEL_FLOOR))


def mel_cepstral_distortion(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """Mel-cepstral distortion in dB over coefficients 1 to 13 (formula of Kubichek 1993); lower is better.

    ``(10 / ln 10) * sqrt(2 * sum((c - c') ** 2))`` per frame, mean over all frames in step (no time warping). The
    cepstra are the cosine series of the log-mel magnitudes of the mel distance (see ``mel_cepstra``), not those of
    WORLD and SPTK, so it does not compare with numbers made with these. The loudness (coefficient 0) is left out.

    Raises:
        MetricError: as for ``mel_distance``.
    """
    first, second = (mel_cepstra(log_mel(signal)) for signal in _at_16k(*_pair(reference, degraded), rate))
    return float((10 / np.log(10) * np.sqrt(2 * ((first - second) ** 2).sum(axis=1))).mean())


def mel_cepstra(log_mels: np.ndarray, count: int = MEL_CEPSTRA) -> np.ndarray:
    """Coefficients 1 to ``count`` of the cosine series over the bands ``[N, B]`` -> ``[N, count]``.

    ``c_k = 2 / B * sum_b x_b cos(pi k (b + 1/2) / B)``, so that ``x_b = c_0 / 2 + sum_k c_k cos(...)``: the DCT-II of a
    log magnitude spectrum in the scale that the distortion's formula is about.
    """
    bands = log_mels.shape[1]
    angles = np.pi / bands * np.arange(1, count + 1)[:, None] * (np.arange(bands) + 0.5)
    return 2 / bands * log_mels @ np.cos(angles).T


def visqol(reference: np.ndarray, degraded: np.ndarray, rate: int) -> float:
    """ViSQOL's speech mode (Chinen et al. 2020, package ``visqol-python``), MOS-LQO from 1 to 5; higher is better.

    The similarities are mapped by ViSQOL's polynomial for speech, scaled to 5 for equal signals, whether or not the
    runtime of its other mapper (a lattice network) is installed, so that machines agree.

    Raises:
        MetricError: signals that do not match, silence, too little speech, or the package is missing.
    """
    reference, degraded = _at_16k(*_pair(reference, degraded), rate)
    _optional("visqol", extra="visqol")
    _needs_sound("ViSQOL", reference, degraded)
    try:
        value = float(_visqol().measure_from_arrays(reference, degraded, RATE).moslqo)
    except (IndexError, ValueError) as error:
        raise MetricError("ViSQOL needs more speech: it found no patch to compare") from error
    if not np.isfinite(value):
        raise MetricError("ViSQOL found no finite similarity for this pair")
    return value


@dataclass(frozen=True)
class Metric:
    """A metric as tables show it."""

    name: str
    label: str
    function: Callable[[np.ndarray, np.ndarray, int], float]
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 3


METRICS = {
    metric.name: metric
    for metric in (
        Metric("pesq_wb", "PESQ-WB", pesq_wb, digits=2),
        Metric("stoi", "STOI", stoi),
        Metric("estoi", "ESTOI", estoi),
        Metric("mel_distance", "mel distance", mel_distance, higher_is_better=False),
        Metric("si_sdr", "SI-SDR", si_sdr, unit="dB", digits=1),
        Metric("mcd", "MCD", mel_cepstral_distortion, unit="dB", higher_is_better=False, digits=2),
    )
}


ASKED = {"visqol": Metric("visqol", "ViSQOL", visqol, digits=2)}
"""Metrics that are measured only where they are asked for, because they are slow."""


@dataclass(frozen=True)
class Score:
    """What became of one metric on one pair: a value, or the reason why there is none."""

    metric: str
    value: float | None
    failure: str | None = None
    weight: float = 1.0
    """Share in the mean over a corpus, such as the words of the utterance for a word error rate."""


def score(metric: str, reference: np.ndarray, degraded: np.ndarray, rate: int) -> Score:
    """The value of a metric of ``METRICS`` or ``ASKED``, or its failure, never a default."""
    try:
        return Score(metric, (METRICS | ASKED)[metric].function(reference, degraded, rate))
    except MetricError as error:
        return Score(metric, None, str(error))


def _stoi(reference: np.ndarray, degraded: np.ndarray, rate: int, extended: bool) -> float:
    reference, degraded = _at_16k(*_pair(reference, degraded), rate)
    package = _optional("pystoi", extra="demo")
    _needs_sound("STOI", reference, degraded)
    try:
        with warnings.catch_warnings():
            # pystoi answers 1e-5 and a warning where it found too little speech; that is no measurement
            warnings.simplefilter("error", RuntimeWarning)
            return float(package.stoi(reference, degraded, RATE, extended=extended))
    except (RuntimeWarning, ValueError) as error:
        raise MetricError("STOI needs about 0.4 s of speech once silent frames are left out") from error


def _pair(reference: np.ndarray, degraded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, degraded = np.asarray(reference, np.float64), np.asarray(degraded, np.float64)
    if reference.ndim != 1 or reference.shape != degraded.shape or not len(reference):
        raise MetricError(f"signals must be mono and equally long, not {reference.shape} and {degraded.shape}")
    if not (np.isfinite(reference).all() and np.isfinite(degraded).all()):
        raise MetricError("signals must be finite, one of them holds NaN or infinity")
    return reference, degraded


def _at_16k(reference: np.ndarray, degraded: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    if rate == RATE:
        return reference, degraded
    return soxr.resample(reference, rate, RATE), soxr.resample(degraded, rate, RATE)


def _needs_sound(name: str, reference: np.ndarray, degraded: np.ndarray) -> None:
    for which, signal in (("reference", reference), ("degraded signal", degraded)):
        if not np.any(signal):
            raise MetricError(f"{name} is not defined here: the {which} is silent")


def _optional(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        command = f"pip install 'speechtok[{extra}]'"
        raise MetricError(f"the package {package} is not installed; run: {command}") from error


@lru_cache(maxsize=1)
def _visqol() -> Any:
    api = importlib.import_module("visqol").VisqolApi()
    api.create(mode="speech", use_lattice_model=False)
    return api


@lru_cache(maxsize=1)
def _mel_tables() -> tuple[np.ndarray, np.ndarray]:
    window = np.hanning(MEL_FFT + 1)[:-1]  # periodic, as torch's default
    return window, mel_filters(RATE, MEL_FFT, MEL_BANDS).T.astype(np.float64)
