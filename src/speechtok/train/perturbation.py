"""The same words at the same times in another voice: pitch and formants moved by one factor.

After the perturbation of LSCodec (arXiv 2410.15764), which stretches and resamples: playing speech faster moves pitch
and formants up and shortens it, and a time stretch that leaves pitch alone makes it as long as it was. The stretch is
WSOLA (Verhelst and Roelands 1993): pieces of the signal are overlapped, each taken where it goes on best.
"""

from __future__ import annotations

import numpy as np
import soxr

HOP = 0.016
"""Seconds between the pieces, which are twice as long; a piece holds more than one period of any voice."""
REACH = 0.008
"""Seconds by which a piece may be moved to either side; together they hold a period of a low voice."""


def perturb(wave: np.ndarray, factors: np.ndarray, rate: int) -> np.ndarray:
    """``wave[B, T]`` at ``rate`` Hz with pitch and formants ``factors[B]`` times as high: float32 ``[B, T]``.

    What happens when stays where it was, to within ``REACH``.
    """
    faster = [soxr.resample(row, float(factor), 1.0) for row, factor in zip(wave, factors, strict=True)]
    longest = max(map(len, faster))
    together = np.stack([np.pad(row, (0, longest - len(row))) for row in faster])
    return stretch(together, factors, wave.shape[1], rate)


def stretch(wave: np.ndarray, factors: np.ndarray, samples: int, rate: int) -> np.ndarray:
    """``wave[B, T']`` to ``[B, samples]``, ``factors[B]`` times as slow at the same pitch."""
    hop, reach = round(HOP * rate), round(REACH * rate)
    count = -(-samples // hop) + 1
    places = np.round(np.arange(count)[:, None] * hop / factors).astype(int)  # of the pieces' middles, [count, B]
    padded = np.pad(wave, ((0, 0), (hop + reach, max(0, places.max() - wave.shape[1]) + 3 * hop + 2 * reach)))
    window = np.hanning(2 * hop + 1)[:-1]
    output = np.zeros((len(wave), (count + 1) * hop))
    start = places[0] + reach
    for index, place in enumerate(places):
        if index:
            wanted = _cut(padded, start + hop, 2 * hop)  # how the signal goes on after the last piece
            start = place + _best(_cut(padded, place, 2 * (hop + reach)), wanted)
        output[:, index * hop : (index + 2) * hop] += window * _cut(padded, start, 2 * hop)
    return output[:, hop : hop + samples].astype(np.float32)


def _cut(wave: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """``wave[B, T]`` from ``starts[B]`` on: ``[B, size]``."""
    return np.take_along_axis(wave, starts[:, None] + np.arange(size), axis=1)


def _best(region: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where in ``region[B, R]`` a piece begins that is most like ``wanted[B, L]`` in shape, ``[B]``.

    Among equals, such as in silence, the one nearest to the middle.
    """
    lags = region.shape[1] - wanted.shape[1] + 1
    spectrum = np.fft.rfft(region) * np.fft.rfft(wanted, region.shape[1]).conj()
    products = np.fft.irfft(spectrum, region.shape[1])[:, :lags]
    energy = np.cumsum(np.pad(region.astype(np.float64) ** 2, ((0, 0), (1, 0))), axis=1)
    energy = energy[:, wanted.shape[1] :] - energy[:, :lags]
    likeness = products / np.sqrt(np.maximum(energy, 1e-8))
    nearest = np.argsort(np.abs(np.arange(lags) - lags // 2), kind="stable")
    return nearest[likeness[:, nearest].argmax(1)]
