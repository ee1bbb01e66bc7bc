"""What several trainings of one thing say, and by what share one error rate is lower than another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from speechtok.bench.statistics import Estimate, draw_items, tails
from speechtok.errors import ConfigError

BASE_ZERO = "the rate that it is compared with is 0"
ONE_SIDED = "one side was not measured"


def over_seeds(values: Sequence[float | None], confidence: float = 0.95) -> Estimate:
    """Mean over seeds with Student's t interval, which takes what seeds give to be normal; without one below two.

    Values that are None count as failed.

    Raises:
        ConfigError: ``scipy`` is not installed.
    """
    known = np.array([value for value in values if value is not None], np.float64)
    failed = len(values) - len(known)
    reasons = ((ONE_SIDED, failed),) if failed else ()
    if len(known) < 2:
        return Estimate(float(known[0]) if len(known) else None, None, None, len(known), failed, reasons)
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ConfigError("intervals over seeds need scipy; pip install 'speechtok[bench]'") from error
    half = float(t.ppf(tails(confidence)[1], len(known) - 1) * known.std(ddof=1) / np.sqrt(len(known)))
    mean = float(known.mean())
    return Estimate(mean, mean - half, mean + half, len(known), failed, reasons)


def relative_change(
    first: Sequence[float | None],
    second: Sequence[float | None],
    weights: Sequence[float],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """``rate of first / rate of second - 1`` over the same items, with its bootstrap interval over them.

    Rates are weighted means; items with a missing side are left out and counted as failed.
    """
    pairs = [row for row in zip(first, second, weights, strict=True) if None not in row]
    failed = len(first) - len(pairs)
    reasons = ((ONE_SIDED, failed),) if failed else ()
    values = np.array(pairs, np.float64).reshape(-1, 3)
    errors = values[:, :2] * values[:, 2:]
    if not len(pairs) or not errors[:, 1].sum():
        return Estimate(None, None, None, 0, len(first), (*reasons, *(((BASE_ZERO, len(pairs)),) if pairs else ())))
    mean = float(errors[:, 0].sum() / errors[:, 1].sum() - 1)
    sums = errors[draw_items(len(pairs), resamples, seed)].sum(axis=1)
    drawn = sums[sums[:, 1] > 0]
    if len(pairs) < 2:
        return Estimate(mean, None, None, len(pairs), failed, reasons)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1] - 1, tails(confidence))
    return Estimate(mean, float(low), float(high), len(pairs), failed, reasons)
