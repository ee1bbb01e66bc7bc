"""Where a falling curve bends: the smallest bitrate that is still as good as the whole, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechtok.bench.statistics import draw_items, tails

RESAMPLES = 2000


@dataclass(frozen=True)
class Bend:
    """The knee of one curve, in the unit of its places."""

    at: float
    """Smallest place from which on the mean loss stays within the margin."""
    low: float
    high: float
    """The middle 95 % of the knees of the resamples; all are places of the curve."""
    sure: float
    """Smallest place from which on the upper end of the loss's 95 % interval stays within the margin."""
    n: int
    below: bool
    """Whether it is the smallest place there is: the knee may be lower."""
    above: bool
    """Whether it is the largest: the curve still falls, and the knee may be higher."""


def find_bend(
    losses: np.ndarray, places: Sequence[float], margin: float, weights: Sequence[float] | None = None, seed: int = 0
) -> Bend:
    """The knee of a curve over utterances.

    Args:
        losses: ``[U, R]``, how much worse each utterance is at each place than at the last one.
        places: ``[R]``, rising, such as bit/s.
        margin: how much mean loss is still as good.
        weights: ``[U]``, of the utterances in the mean.

    Raises:
        ValueError: no utterances, fewer than two places, or places that do not rise.
    """
    if not len(losses) or len(places) < 2 or list(places) != sorted(set(places)):
        raise ValueError("a knee needs utterances and at least two rising places")
    share = np.ones(len(losses)) if weights is None else np.asarray(weights, dtype=np.float64)
    draws = draw_items(len(losses), RESAMPLES, seed)
    means = (losses * share[:, None])[draws].sum(axis=1) / share[draws].sum(axis=1)[:, None]
    mean = (losses * share[:, None]).sum(axis=0) / share.sum()
    low, high = tails(0.95)
    known = np.asarray(places, dtype=np.float64)
    knees = known[_first_within(means, margin)]
    at = int(_first_within(mean[None], margin)[0])
    sure = int(_first_within(np.quantile(means, high, axis=0)[None], margin)[0])
    ends = np.quantile(knees, low, method="lower"), np.quantile(knees, high, method="higher")
    return Bend(known[at], float(ends[0]), float(ends[1]), known[sure], len(losses), at == 0, at == len(known) - 1)


def _first_within(losses: np.ndarray, margin: float) -> np.ndarray:
    """Of each row ``losses[B, R]``, the first place from which on nothing exceeds the margin."""
    worst = np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1]
    return (worst > margin).sum(axis=1).clip(max=losses.shape[1] - 1)
