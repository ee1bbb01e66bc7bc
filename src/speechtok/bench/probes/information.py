"""SLMTokBench's mutual information between tokens x and text y: vCLUB with a CTC probe as q(y | x).

``I = (1 / N^2) sum_i sum_j [log q(y_i | x_i) - log q(y_j | x_i)]`` (Zhang et al. 2024, section 3.1; the bound is by
Cheng et al. 2020). The paper leaves open what is chosen here: N is a batch, log q is divided by the characters of its
text, and pairs whose text does not fit the tokens' outputs, of which log q is minus infinity, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from speechtok.nn.ctc import ctc_nats

BATCH = 32
ROUNDS = 4
"""Times that the utterances are put into other batches."""


class Information(NamedTuple):
    """The estimate by utterance."""

    values: np.ndarray
    """Nats, ``[N]``; NaN where an utterance's own text does not fit its tokens. Their mean is I."""
    pairs: int
    """Pairs of tokens and texts that were looked at, in all rounds."""
    skipped: int
    """How many of them were left out."""


def club(log_q: np.ndarray) -> np.ndarray:
    """What each i adds to the estimate, ``[N]``: the mean over j of ``log q(y_i | x_i) - log q(y_j | x_i)``.

    Args:
        log_q: ``[N, N]``, tokens by texts; minus infinity where a pair is to be left out. NaN comes out where that is
            the utterance's own text.
    """
    fits = np.isfinite(log_q)
    others = np.where(fits, log_q, 0.0).sum(1) / np.maximum(1, fits.sum(1))
    own = np.diag(log_q)
    return np.where(np.isfinite(own), own - others, np.nan)


def pair_log_likelihoods(answers: Sequence[Tensor], targets: Sequence[np.ndarray]) -> np.ndarray:
    """``log q(y_j | x_i)`` in nats per character, ``[N, N]``; minus infinity where y_j does not fit into x_i.

    Args:
        answers: logits ``[M, C]`` of every utterance.
        targets: characters from 1, ``[L]`` each.
    """
    texts = [torch.from_numpy(target) for target in targets]
    characters = torch.tensor([len(text) for text in texts])
    rows = []
    for answer in answers:
        outputs = torch.full((len(texts),), len(answer))
        rows.append(-ctc_nats(answer.expand(len(texts), -1, -1), outputs, texts) / characters)
    return torch.stack(rows).double().numpy()


def random_orders(count: int, rounds: int = ROUNDS, seed: int = 0) -> list[np.ndarray]:
    """Orders that put utterances of any length together, as in the paper's formula."""
    draws = np.random.default_rng(seed)
    return [draws.permutation(count) for _ in range(rounds)]


def by_length(answers: Sequence[Tensor]) -> list[np.ndarray]:
    """One order that puts utterances of similar length together, so that length alone tells little about the text."""
    return [np.argsort([len(answer) for answer in answers], kind="stable")]


def mutual_information(
    answers: Sequence[Tensor],
    targets: Sequence[np.ndarray],
    orders: Sequence[np.ndarray],
    batch: int = BATCH,
) -> Information:
    """The estimate over batches of at most ``batch`` utterances, as even as they go; mean over several orders.

    Args:
        answers: as for ``pair_log_likelihoods``.
        targets: the same.
        orders: all utterances, ``[N]`` each; neighbours are put into one batch.
    """
    values, pairs, skipped = np.zeros((len(orders), len(targets))), 0, 0
    for found, order in zip(values, orders, strict=True):
        for picks in np.array_split(order, -(-len(order) // batch)):
            log_q = pair_log_likelihoods([answers[i] for i in picks], [targets[i] for i in picks])
            found[picks] = club(log_q)
            pairs, skipped = pairs + log_q.size, skipped + int((~np.isfinite(log_q)).sum())
    return Information(values.mean(0), pairs, skipped)
