"""Spans of frames that are hidden from a network (HuBERT, section III-B; wav2vec 2.0; SpecAugment)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def spans(draws: np.random.Generator, lengths: Sequence[int], frames: int, share: float, span: int) -> np.ndarray:
    """Mask ``[B, frames]``: of every row's ``lengths[i]`` frames the ``share`` begin a span of ``span`` frames.

    Starts differ, spans may overlap, and none reaches beyond its row's length. The number of starts is rounded up or
    down by chance; a row has at least one, where ``share`` is above 0 and a span fits.
    """
    mask = np.zeros((len(lengths), frames), bool)
    for row, length in zip(mask, lengths, strict=True):
        places = min(length, frames) - span + 1
        chance = draws.random()  # drawn for every row, so that no row depends on another's length
        if places < 1 or share <= 0:
            continue
        count = min(places, max(1, int(share * min(length, frames) + chance)))
        starts = draws.choice(places, count, replace=False)
        row[(starts[:, None] + np.arange(span)).ravel()] = True
    return mask
