"""How many steps per second of speech a language model has to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from speechtok.errors import TokenError
from speechtok.layouts.base import Layout
from speechtok.layouts.bpe import Bpe
from speechtok.layouts.runs import run_lengths
from speechtok.layouts.vocabulary import Vocabulary
from speechtok.tokens import Tokens


@dataclass(frozen=True)
class UnitRates:
    """Units per second over a body of speech: all units of all utterances over all their seconds."""

    utterances: int
    seconds: float
    plain: float
    """As they come: frame rate times levels (a last part of a frame counts as a frame)."""
    deduplicated: float
    """Runs of equal frames said once, without durations: shorter, and no longer invertible."""
    with_durations: float
    """The same with one duration per run, uncut."""
    bpe: float | None
    """After byte-pair encoding with given merges; None where none were given."""

    def to_dict(self) -> dict[str, float | None]:
        """Plain types, ready for JSON."""
        return asdict(self)


def steps_per_second(layout: Layout, utterances: Iterable[Tokens]) -> float:
    """Length of all content sequences (without bos and eos) over all seconds; parallel streams count one per step.

    Raises TokenError without an utterance, TokenFileError for tokens that the layout's vocabulary does not fit.
    """
    steps = seconds = 0.0
    for tokens in utterances:
        steps += layout.encode(tokens).shape[-1]
        seconds += tokens.seconds
    if not seconds:
        raise TokenError("rates need at least one utterance")
    return steps / seconds


def unit_rates(utterances: Sequence[Tokens], bpe: Vocabulary | None = None) -> UnitRates:
    """What deduplication and byte-pair encoding leave of these tokens; give it ``tokens.take(1)`` for one level.

    Args:
        utterances: tokens with the same levels.
        bpe: a vocabulary with merges, learned on other speech.

    Raises:
        TokenError: no utterance, or ``bpe`` without merges.
        TokenFileError: ``bpe`` is for other tokens.
    """
    if not utterances:
        raise TokenError("rates need at least one utterance")
    if bpe is not None and not bpe.merges:
        raise TokenError("this vocabulary has no merges; learn them with train_bpe")
    seconds = sum(tokens.seconds for tokens in utterances)
    runs = [(run_lengths(tokens.codes)[0].shape, tokens.levels) for tokens in utterances]
    return UnitRates(
        utterances=len(utterances),
        seconds=seconds,
        plain=sum(tokens.codes.size for tokens in utterances) / seconds,
        deduplicated=sum(count * levels for (_, count), levels in runs) / seconds,
        with_durations=sum(count * (levels + 1) for (_, count), levels in runs) / seconds,
        bpe=None if bpe is None else steps_per_second(Bpe(bpe), utterances),
    )
