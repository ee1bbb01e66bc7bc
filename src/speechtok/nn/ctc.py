"""Probability of a text given frame-wise outputs, over all ways to spell it (CTC, Graves et al. 2006)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ctc_nats(logits: Tensor, outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """``-log q(target | logits)`` of each utterance in nats, ``[B]``; infinite where a target has no way at all.

    Args:
        logits: ``[B, M, C]``; class 0 is the blank.
        outputs: how many of the M count, ``[B]``.
        targets: classes from 1, ``[L]`` each.
    """
    probabilities = logits.float().log_softmax(-1).transpose(0, 1)
    lengths = torch.tensor([len(target) for target in targets])
    together = torch.cat([*targets]).to(logits.device)
    return F.ctc_loss(probabilities, together, outputs, lengths, reduction="none")


def possible(outputs: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """Which targets have a way, ``[B]``: as many outputs as classes, and a blank between two that are equal."""
    needed = [len(target) + int((target[1:] == target[:-1]).sum()) for target in targets]
    return torch.tensor(needed) <= outputs
