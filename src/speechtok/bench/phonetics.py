"""How much of the phones a stream of codes tells: mutual information and purities on aligned frames.

Source: HuBERT (Hsu et al. 2021, section IV-D); the mutual information is normalised by the entropy of the phones.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class PhoneticScores:
    """Of one codebook over a fixed body of frames."""

    pnmi: float
    """``I(phone; code) / H(phone)``, 0 to 1: the share of the uncertainty about the phone that the code takes away."""
    phone_purity: float
    """How often a frame's phone is the commonest one of its code."""
    cluster_purity: float
    """How often a frame's code is the commonest one of its phone. It falls as codes are added."""
    frames: int
    phones: int
    codes: int
    """Different codes that occur."""

    def to_dict(self) -> dict[str, float]:
        """Plain types, ready for JSON."""
        return asdict(self)


def joint_counts(phones: Sequence[Hashable], codes: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """Table ``[P, C]`` of how often phone and code meet in a frame, over those that occur, in sorted order.

    Raises:
        ValueError: different numbers of frames, or none.
    """
    phones, codes = np.asarray(phones), np.asarray(codes)
    if phones.shape != codes.shape or phones.ndim != 1 or not len(phones):
        raise ValueError(f"phones {phones.shape} and codes {codes.shape} must be equally long, and not empty")
    kinds, rows = np.unique(phones, return_inverse=True)
    used, columns = np.unique(codes, return_inverse=True)
    cells = np.bincount(rows * len(used) + columns, minlength=len(kinds) * len(used))
    return cells.reshape(len(kinds), len(used))


def phonetic_scores(counts: np.ndarray) -> PhoneticScores:
    """Scores of a table ``[P, C]`` of frame counts.

    The information is a plug-in estimate: with few frames per code it comes out too high, so compare streams over the
    same frames and with equally many codes. One phone alone has no entropy to explain, and a PNMI of 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    joint = counts / total
    phone, code = joint.sum(1), joint.sum(0)
    met = joint > 0
    information = float((joint[met] * np.log(joint[met] / np.outer(phone, code)[met])).sum())
    entropy = float(-(phone[phone > 0] * np.log(phone[phone > 0])).sum())
    return PhoneticScores(
        pnmi=max(0.0, information) / entropy if entropy > 0 else 0.0,
        phone_purity=float(joint.max(0).sum()),
        cluster_purity=float(joint.max(1).sum()),
        frames=int(total),
        phones=int((phone > 0).sum()),
        codes=int((code > 0).sum()),
    )
