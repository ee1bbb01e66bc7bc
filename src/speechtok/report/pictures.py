"""Pictures as small palette PNGs (8 bits per pixel) straight from arrays: spectrograms and strips of tokens.

Only pixels: axes, labels and the playhead belong to the page, where they stay sharp and follow its theme.
"""

from __future__ import annotations

import base64
import colorsys
import struct
import zlib
from functools import lru_cache

import numpy as np

MAGMA = ("000004", "1c1044", "4f127b", "812581", "b5367a", "e55064", "fb8761", "fec287", "fcfdbf")
"""Nine even steps of matplotlib's magma (CC0)."""
SPECTRUM_FFT, SPECTRUM_ROWS, SPECTRUM_PER_SECOND, SPECTRUM_SHADES = 512, 128, 100, 64
HUES, SHADES = 32, 8


def png(indices: np.ndarray, palette: np.ndarray) -> bytes:
    """PNG of ``indices[height, width]`` (uint8) into ``palette[colours, 3]`` (uint8)."""
    height, width = indices.shape
    lines = np.zeros((height, width + 1), dtype=np.uint8)  # first byte of a line: filter type none
    lines[:, 1:] = indices
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.astype(np.uint8).tobytes()),
        (b"IDAT", _deflate(lines)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def data_uri(data: bytes, kind: str) -> str:
    """The bytes as a ``data:`` address of the media type ``kind``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def spectrum(samples: np.ndarray, rate: int) -> np.ndarray:
    """Power in dB, ``[128, columns]`` with the highest frequency first and about 100 columns per second."""
    hop = max(1, rate // SPECTRUM_PER_SECOND)
    padded = np.pad(samples.astype(np.float64), SPECTRUM_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPECTRUM_FFT)[::hop] * np.hanning(SPECTRUM_FFT)
    power = np.abs(np.fft.rfft(frames)[:, : SPECTRUM_FFT // 2]) ** 2
    pooled = power.reshape(len(power), SPECTRUM_ROWS, -1).mean(axis=2)
    return 10 * np.log10(pooled + 1e-12).T[::-1]


def spectrum_png(decibels: np.ndarray, top: float, span: float = 75.0) -> bytes:
    """Picture of ``spectrum``; ``top`` dB is brightest and ``span`` dB below it is black."""
    shades = np.clip(np.rint((decibels - top + span) / span * (SPECTRUM_SHADES - 1)), 0, SPECTRUM_SHADES - 1)
    return png(shades.astype(np.uint8), _magma(SPECTRUM_SHADES))


def strip_png(codes: np.ndarray, vivid: bool) -> bytes:
    """One pixel per token, ``codes[Q, N]``: equal codes of a level share a colour, neighbours differ in theirs."""
    rows = np.arange(codes.shape[0], dtype=np.uint64)[:, None]
    mixed = (codes.astype(np.uint64) + rows * 7919 + 1) * 2654435761 % 2**32
    return png((mixed >> 24).astype(np.uint8), _code_colours(vivid))


@lru_cache
def _magma(shades: int) -> np.ndarray:
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in MAGMA], dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, shades)
    return np.stack([np.interp(places, np.arange(len(anchors)), anchors[:, i]) for i in range(3)], axis=1).round()


@lru_cache
def _code_colours(vivid: bool) -> np.ndarray:
    saturation = 0.72 if vivid else 0.28
    shades = np.linspace(0.36, 0.72, SHADES)
    colours = [colorsys.hls_to_rgb(hue / HUES, shade, saturation) for hue in range(HUES) for shade in shades]
    return np.rint(np.array(colours) * 255)


def _deflate(lines: np.ndarray) -> bytes:
    return zlib.compress(lines.tobytes(), 9)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
