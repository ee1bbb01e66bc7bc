"""Speaker verification: are two recordings of one speaker? Trials, equal error rate, detection cost.

Sources: the equal error rate and the normalised detection cost of NIST's speaker recognition evaluations; prior 0.05
with equal costs is that of the VoxSRC challenges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechtok.errors import ConfigError

PRIOR = 0.05
"""Of a trial with one speaker, in the detection cost."""
UNNAMED = ("", "unknown")
"""What manifests say, in lower case, for a speaker whom nobody named."""


def all_pairs(embeddings: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Every unordered pair of different recordings: cosines ``[P]`` and both speakers' numbers ``[P, 2]``.

    Args:
        embeddings: ``[N, E]``, of any length but zero.
        speakers: name of each recording's speaker; the numbers follow the sorted names.
    """
    _, numbers = np.unique(np.asarray(speakers), return_inverse=True)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    first, second = np.triu_indices(len(unit), 1)
    return (unit @ unit.T)[first, second], np.stack([numbers[first], numbers[second]], axis=1)


def equal_error_rate(scores: np.ndarray, same: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The share of errors, 0 to 1, at the threshold where misses are as frequent as false alarms.

    Between two thresholds the curve is taken to be straight, as when decisions are mixed at random.

    Args:
        scores: ``[P]``, higher means more alike.
        same: ``[P]``, whether the trial has one speaker.
        weights: ``[P]``, how often each trial counts; once by default.

    Raises:
        ConfigError: the trials are all of one speaker, or all of two, or a score is not finite.
    """
    misses, alarms = _error_rates(scores, same, weights)
    crossing = int(np.argmax(misses >= alarms))  # the first threshold at which misses are as many; it is never the 0th
    gap = alarms - misses
    share = gap[crossing - 1] / (gap[crossing - 1] - gap[crossing])
    return float(alarms[crossing - 1] + share * (alarms[crossing] - alarms[crossing - 1]))


def detection_cost(scores: np.ndarray, same: np.ndarray, prior: float = PRIOR) -> float:
    """Least cost of the decisions over all thresholds (minDCF), where 1 is that of knowing nothing but the prior.

    Arguments and errors as for ``equal_error_rate``; a miss and a false alarm cost the same.
    """
    misses, alarms = _error_rates(scores, same, None)
    return float((prior * misses + (1 - prior) * alarms).min() / min(prior, 1 - prior))


def error_rate_interval(
    scores: np.ndarray, pairs: np.ndarray, confidence: float = 0.95, resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval of the equal error rate over speakers, the only independent things in ``all_pairs``.

    A speaker drawn k times counts in k times as many trials; two draws of one speaker are not compared. Draws of one
    speaker alone have no equal error rate and are left out.
    """
    order = np.argsort(scores)  # once, so that the sort inside every draw has nothing to do
    scores, pairs = scores[order], pairs[order]
    same, count = pairs[:, 0] == pairs[:, 1], int(pairs.max()) + 1
    random, rates = np.random.default_rng(seed), []
    for _ in range(resamples):
        times = np.bincount(random.integers(count, size=count), minlength=count)
        weights = np.where(same, times[pairs[:, 0]], times[pairs[:, 0]] * times[pairs[:, 1]])
        if weights[same].any() and weights[~same].any():
            rates.append(equal_error_rate(scores, same, weights))
    tail = (1 - confidence) / 2
    low, high = np.quantile(rates, (tail, 1 - tail))
    return float(low), float(high)


def _error_rates(scores: np.ndarray, same: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Shares of misses and of false alarms, from accepting every trial to accepting none."""
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same, dtype=bool)
    counts = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    targets, others = counts * same, counts * ~same
    if not np.isfinite(scores).all():
        raise ConfigError("a score of a verification trial is not finite; check the speaker model")
    if not (targets.any() and others.any()):
        raise ConfigError("verification needs trials of one speaker and of two; give two speakers, two recordings each")
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    # a threshold cannot part equal scores
    steps = np.r_[0, np.flatnonzero(ordered[1:] > ordered[:-1]) + 1, len(scores)]
    misses = np.r_[0, np.cumsum(targets[order])][steps] / targets.sum()
    rejected = np.r_[0, np.cumsum(others[order])][steps] / others.sum()
    return misses, 1 - rejected
