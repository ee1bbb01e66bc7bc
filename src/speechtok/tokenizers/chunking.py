"""How a long signal is cut into overlapping windows so that memory stays bounded and no seam is heard.

The overlap is the model's own receptive field, counted in frames: every frame that is kept saw all the input
it can see, so the pieces put together are what one pass over the whole signal gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


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
