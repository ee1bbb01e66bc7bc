"""How much of the phones a stream of codes tells: mutual information and purities on aligned frames.

Source: HuBERT (Hsu et al. 2021, section IV-D); the mutual information is normalised by the entropy of the phones.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from speechtok.bench.statistics import Estimate, draw_items, tails

SCORES = ("pnmi", "phone_purity", "cluster_purity")
RESAMPLES = 200


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
        pnmi=min(1.0, max(0.0, information) / entropy) if entropy > 0 else 0.0,
        phone_purity=min(1.0, float(joint.max(0).sum())),
        cluster_purity=min(1.0, float(joint.max(1).sum())),
        frames=int(total),
        phones=int((phone > 0).sum()),
        codes=int((code > 0).sum()),
    )


class UtteranceCounts:
    """Tables of phones and codes utterance by utterance, so that utterances can be drawn again.

    Args:
        phones: one sequence of labels per utterance.
        codes: as long, utterance by utterance.

    Raises:
        ValueError: unequal lengths, or no frames at all.
    """

    def __init__(self, phones: Sequence[Sequence[Hashable]], codes: Sequence[np.ndarray]):
        if [len(one) for one in phones] != [len(one) for one in codes]:
            raise ValueError("every utterance needs as many phones as codes")
        self.n = len(phones)
        kinds, rows = np.unique(np.concatenate([np.asarray(one) for one in phones]), return_inverse=True)
        used, columns = np.unique(np.concatenate([np.asarray(one) for one in codes]), return_inverse=True)
        self.shape = len(kinds), len(used)
        size = len(kinds) * len(used)
        owner = np.repeat(np.arange(self.n), [len(one) for one in phones])
        # an utterance holds a few hundred of the many thousand cells
        places, self._counts = np.unique(owner * size + rows * len(used) + columns, return_counts=True)
        self._owner, self._cell = np.divmod(places, size)

    def table(self, often: np.ndarray | None = None) -> np.ndarray:
        """Summed counts ``[P, C]``, utterance i taken ``often[i]`` times (once each by default)."""
        counts = self._counts if often is None else self._counts * often[self._owner]
        return np.bincount(self._cell, weights=counts, minlength=self.shape[0] * self.shape[1]).reshape(self.shape)

    def resampled(self, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, np.ndarray]:
        """``SCORES`` of bootstrap resamples of the utterances; the same seed draws the same utterances."""
        draws = draw_items(self.n, resamples, seed)
        found = [phonetic_scores(self.table(np.bincount(draw, minlength=self.n))) for draw in draws]
        return {name: np.array([getattr(one, name) for one in found]) for name in SCORES}

    def estimates(self, confidence: float = 0.95) -> dict[str, Estimate]:
        """``SCORES`` of all utterances with their intervals."""
        scores, resampled = phonetic_scores(self.table()), self.resampled()
        return {name: self._estimate(getattr(scores, name), resampled[name], confidence, 0.0) for name in SCORES}

    def differences(self, other: UtteranceCounts, confidence: float = 0.95) -> dict[str, Estimate]:
        """``SCORES`` of this stream less those of another over the same utterances, drawn alike.

        Raises:
            ValueError: another number of utterances.
        """
        if self.n != other.n:
            raise ValueError(f"{self.n} utterances cannot be paired with {other.n}")
        ours, theirs = phonetic_scores(self.table()), phonetic_scores(other.table())
        drawn, drawn_there = self.resampled(), other.resampled()
        return {
            name: self._estimate(
                getattr(ours, name) - getattr(theirs, name), drawn[name] - drawn_there[name], confidence
            )
            for name in SCORES
        }

    def _estimate(self, value: float, resampled: np.ndarray, confidence: float, least: float = -1.0) -> Estimate:
        """The interval stays between ``least`` and 1, beyond which no such figure lies, and holds the value."""
        if self.n < 2:
            return Estimate(value, None, None, self.n)
        # A resample holds fewer different utterances, which raises these plug-in scores: only its spread counts.
        low, high = np.quantile(resampled, tails(confidence)) - resampled.mean() + value
        return Estimate(value, float(max(least, min(low, value))), float(min(1.0, max(high, value))), self.n)
