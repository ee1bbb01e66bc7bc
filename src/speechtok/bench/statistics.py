"""Means that say how sure they are, with failures counted beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from speechtok.bench.metrics import Score

ONE_SIDED = "one side was not measured"
"""Why a pair has no difference."""


@dataclass(frozen=True)
class Estimate:
    """Mean of what could be measured, its bootstrap interval, and what could not."""

    mean: float | None
    """None where nothing was measured."""
    low: float | None
    """None with fewer than two values, which say nothing about spread."""
    high: float | None
    n: int
    failed: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    """Each reason for a failure, and how often."""

    def to_dict(self) -> dict:
        """Plain types, ready for JSON."""
        return asdict(self) | {"reasons": dict(self.reasons)}


def bootstrap_mean(
    values: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Estimate:
    """Weighted mean with its percentile bootstrap interval; the same ``seed`` gives the same interval.

    The values are taken to be independent, so give one per utterance (or speaker), not one per frame. With the words
    of each utterance as ``weights``, the mean of error rates is the rate of the whole corpus.
    """
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        return Estimate(None, None, None, 0)
    share = np.ones(len(sample)) if weights is None else np.asarray(weights, dtype=np.float64)
    mean = float((sample * share).sum() / share.sum())
    if len(sample) == 1:
        return Estimate(mean, None, None, 1)
    draws = draw_items(len(sample), resamples, seed)
    means = (sample * share)[draws].sum(axis=1) / share[draws].sum(axis=1)
    low, high = np.quantile(means, tails(confidence))
    return Estimate(mean, float(low), float(high), len(sample))


def draw_items(count: int, resamples: int, seed: int = 0) -> np.ndarray:
    """Numbers of the items in each bootstrap resample, ``[resamples, count]``."""
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def tails(confidence: float) -> tuple[float, float]:
    """The quantiles between which a share of ``confidence`` lies."""
    tail = (1 - confidence) / 2
    return tail, 1 - tail


def summarize(scores: Iterable[Score], confidence: float = 0.95, seed: int = 0) -> Estimate:
    """``bootstrap_mean`` of the scores that have a value; the others are counted with their reasons."""
    scores = list(scores)
    reasons = Counter(score.failure for score in scores if score.value is None)
    measured = [score for score in scores if score.value is not None]
    weights = [score.weight for score in measured]
    known = bootstrap_mean([score.value for score in measured], confidence, seed=seed, weights=weights)
    return Estimate(known.mean, known.low, known.high, known.n, reasons.total(), tuple(reasons.most_common()))


def paired_difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    confidence: float = 0.95,
    seed: int = 0,
    weights: Sequence[float] | None = None,
) -> Estimate:
    """Weighted mean of ``first - second`` over the same items in the same order, with its interval.

    Pairs with a missing side are left out and counted as failed. An interval that excludes zero is a difference that
    the choice of items does not explain.
    """
    pairs = list(zip(first, second, weights or [1.0] * len(first), strict=True))
    whole = [(a - b, weight) for a, b, weight in pairs if a is not None and b is not None]
    known = bootstrap_mean([d for d, _ in whole], confidence, seed=seed, weights=[weight for _, weight in whole])
    missing = len(pairs) - len(whole)
    reasons = ((ONE_SIDED, missing),) if missing else ()
    return Estimate(known.mean, known.low, known.high, known.n, missing, reasons)
