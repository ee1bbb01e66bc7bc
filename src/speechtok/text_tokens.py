"""Text tokens as a value: what a recogniser understood of one utterance, as ids of a text vocabulary.

They are not frame-synchronous: how many there are depends on the words, not on the seconds, so there is no hop, no
frame rate and no length law. Where the recogniser knows when the words were said, their times are kept.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from speechtok.checks import frozen, smallest_type, text, whole
from speechtok.errors import NotSupportedError, TokenError
from speechtok.tokenfile import Tensors, TokenValue


class Word(NamedTuple):
    """One word, said from ``start`` to ``end`` in seconds; NaN where the recogniser does not say when."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class TextTokens(TokenValue):
    """The text of one utterance and its ids.

    `ids` is int64 [M], read-only, each below `vocabulary_size`; M may be 0, for silence has no words. `text` is what
    was understood, words separated by spaces. `times` is int64 [W, 2] or None: first sample of each word and the one
    behind its last, within `num_samples`. Equal content makes equal, equally hashed values. Raises TokenError for a
    contradiction.
    """

    FORMAT: ClassVar[str] = "speechtok.text"
    FIELDS: ClassVar[tuple[str, ...]] = (
        "vocabulary_size", "sample_rate", "num_samples", "tokenizer", "fingerprint",
    )  # fmt: skip
    ids: np.ndarray
    text: str
    vocabulary_size: int
    sample_rate: int
    num_samples: int
    tokenizer: str
    fingerprint: str
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # the class is frozen
        for name in ("vocabulary_size", "sample_rate", "num_samples"):
            put(name, whole(name, getattr(self, name), 1))
        for name in ("text", "tokenizer", "fingerprint"):
            text(name, getattr(self, name))
        put("ids", self._checked_ids())
        if self.times is not None:
            put("times", self._checked_times())

    def _checked_ids(self) -> np.ndarray:
        ids = np.asarray(self.ids)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TokenError(f"ids must be whole numbers [M], got {ids.dtype} of shape {ids.shape}")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.vocabulary_size:
            raise TokenError(f"ids {ids.min()}..{ids.max()} leave the vocabulary of {self.vocabulary_size}")
        return frozen(ids, np.int64)

    def _checked_times(self) -> np.ndarray:
        times, words = np.asarray(self.times), len(self.text.split())
        if times.shape != (words, 2) or times.dtype.kind not in "iu":
            raise TokenError(f"times must be whole numbers [{words}, 2], got {times.dtype} of shape {times.shape}")
        if words and (int(times.min()) < 0 or int(times.max()) > self.num_samples or (times[:, 1] < times[:, 0]).any()):
            raise TokenError(f"times of words must rise from 0 to at most {self.num_samples} samples")
        return frozen(times, np.int64)

    @property
    def payload(self) -> np.ndarray:
        """`ids`."""
        return self.ids

    @property
    def words(self) -> tuple[Word, ...]:
        """The words and when they were said."""
        words = self.text.split()
        seconds = np.full((len(words), 2), np.nan) if self.times is None else self.times / self.sample_rate
        return tuple(Word(word, float(a), float(b)) for word, (a, b) in zip(words, seconds, strict=True))

    @property
    def frames(self) -> int:
        """Text has none. Raises NotSupportedError, always."""
        raise NotSupportedError("text tokens have no frames: how many there are depends on the words")

    @property
    def bitrate(self) -> float:
        """bit/s of this very utterance: ids per second times log2(vocabulary size)."""
        return len(self.ids) / self.seconds * math.log2(self.vocabulary_size)

    @property
    def content(self) -> str:
        """Such as "12 ids, 7 words"."""
        return f"{len(self.ids)} ids, {len(self.text.split())} words"

    def describe(self) -> dict[str, Any]:
        """Fields, ids and text, as plain types."""
        return super().describe() | {"ids": len(self.ids), "words": len(self.text.split()), "text": self.text}

    def __repr__(self) -> str:
        return f"TextTokens({self.tokenizer}, {self.content}, {self.seconds:.3f} s, {self.text[:40]!r})"

    def _tensors(self) -> Tensors:
        tensors = {
            "ids": self.ids.astype(smallest_type(self.vocabulary_size - 1)),
            "text": np.frombuffer(self.text.encode("utf-8"), np.uint8),
        }
        if self.times is not None:
            tensors["times"] = self.times.astype(smallest_type(self.num_samples))
        return tensors

    @classmethod
    def _from_file(cls, fields: dict[str, Any], tensors: Tensors) -> "TextTokens":
        said = tensors["text"].astype(np.uint8).tobytes().decode("utf-8")
        known = {name: fields[name] for name in cls.FIELDS}
        return cls(ids=tensors["ids"], text=said, times=tensors.get("times"), **known)
