"""How a long signal is cut into overlapping windows so that memory stays bounded and no seam is heard.

The overlap is the model's own receptive field, counted in frames: every frame that is kept saw all the input
it can see, so the pieces put together are what one pass over the whole signal gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """Frames ``[start, stop)`` go into the model, of its answer frames ``[keep_start, keep_stop)`` are kept.

    All four count frames of the whole signal.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def kept(self) -> slice:
        """The kept frames, counted from the start of the window."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def windows(frames: int, core: int, left: int, right: int) -> Iterator[Window]:
    """Windows that together keep every frame of ``[0, frames)`` once, in order.

    A signal that fits into one window is taken in one piece. Longer ones are cut into windows of one and the
    same size, ``left + core + right`` frames; the last one slides back to end at the end of the signal. Equal
    sizes keep the memory flat, and the real ends of the signal get the model's own padding.

    Args:
        frames: length of the signal, >= 1.
        core: new frames per window, >= 1.
        left: frames of context that a frame needs before it.
        right: frames of context that a frame needs after it.
    """
    size = left + core + right
    if frames <= size:
        yield Window(0, frames, 0, frames)
        return
    done = 0
    while done < frames:
        start = min(max(done - left, 0), frames - size)
        stop = start + size
        end = frames if stop == frames else stop - right
        yield Window(start, stop, done, end)
        done = end


def overlapping(frames: int, longest: int, overlap: int, name: str, frame_rate: float) -> Iterator[Window]:
    """Windows for a model that sees its whole input at once: an approximation, and announced as one.

    Args:
        frames: length of the signal.
        longest: frames that are taken in one piece, and the size of a window beyond that.
        overlap: frames on each side of a window; fewer where that would leave less than half of it new.
        name: of the model, for the warning.
        frame_rate: frames per second.
    """
    overlap = min(overlap, longest // 4)
    if frames > longest:
        warnings.warn(
            f"{name} sees its whole input at once; audio over {longest / frame_rate:g} s is taken "
            f"in windows that overlap by {overlap / frame_rate:g} s, so a few codes near seams may differ",
            stacklevel=6,
        )
    return windows(frames, longest - 2 * overlap, overlap, overlap)


def in_pieces(
    samples: np.ndarray, hop: int, plan: Iterable[Window], model: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``model`` on each window of ``samples[T]``; it answers ``[n, ...]`` for n frames; the kept ones are joined."""
    return np.concatenate([model(samples[w.start * hop : w.stop * hop])[w.kept] for w in plan])
