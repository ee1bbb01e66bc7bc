"""Tokens as a value. Their file (see `tokenfile`) holds `codes` in the smallest unsigned type, and any `timbre`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from speechtok.checks import frozen, smallest_type, text, whole, wholes
from speechtok.errors import TokenError
from speechtok.tokenfile import Tensors, TokenValue


def nominal_bitrate(frame_rate: float, codebook_sizes: Sequence[int]) -> float:
    """bit/s of codes of fixed length: frame rate times the sum of log2(codebook size)."""
    return frame_rate * sum(math.log2(size) for size in codebook_sizes)


class _Widened:
    """The field `codes`, held as `packed`: hours of int64 would weigh as much as a model's work."""

    def __get__(self, tokens: "Tokens | None", owner: type) -> np.ndarray:
        if tokens is None:
            raise AttributeError("codes")  # by which the dataclass sees that the field has no default
        return frozen(tokens.packed, np.int64)

    def __set__(self, tokens: "Tokens", codes: np.ndarray) -> None:
        tokens.__dict__["packed"] = codes


@dataclass(frozen=True, eq=False)
class Tokens(TokenValue):
    """The codes of one utterance and what is needed to understand and decode them.

    `codes` is int64 [Q, N], read-only: Q consecutive levels of the tokenizer, coarsest first, beginning with
    its level `first_level`; N frames, N == ceil(num_samples / hop). They are held as `packed` and widened each
    time they are asked for. `codebook_sizes` has one entry per level present. `semantic_levels` are level
    numbers of the tokenizer (0 = its coarsest), each among those present. `timbre` is float32 [D] or None.
    Equal content makes equal, equally hashed values. Raises TokenError for a contradiction.
    """

    FORMAT: ClassVar[str] = "speechtok.tokens"
    FIELDS: ClassVar[tuple[str, ...]] = (
        "codebook_sizes", "sample_rate", "hop", "num_samples", "semantic_levels", "tokenizer", "fingerprint",
        "first_level",
    )  # fmt: skip
    codes: np.ndarray = _Widened()  # type: ignore[assignment]
    codebook_sizes: tuple[int, ...]
    sample_rate: int
    hop: int
    num_samples: int
    semantic_levels: tuple[int, ...]
    tokenizer: str
    fingerprint: str
    first_level: int = 0
    timbre: np.ndarray | None = None
    packed: ClassVar[np.ndarray]
    """`codes` in the smallest unsigned type that holds the codebooks, read-only. Widen before you reckon with them."""

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # the class is frozen
        for name, least in (("sample_rate", 1), ("hop", 1), ("num_samples", 1), ("first_level", 0)):
            put(name, whole(name, getattr(self, name), least))
        put("codebook_sizes", wholes("codebook_sizes", self.codebook_sizes, 1))
        put("semantic_levels", wholes("semantic_levels", self.semantic_levels, 0))
        for name in ("tokenizer", "fingerprint"):
            text(name, getattr(self, name))
        put("codes", self._checked_codes())
        self._check_semantic_levels()
        if self.timbre is not None:
            put("timbre", _checked_timbre(self.timbre))

    def _checked_codes(self) -> np.ndarray:
        codes = np.asarray(self.packed)
        if codes.ndim != 2 or codes.dtype.kind not in "iu":
            raise TokenError(f"codes must be whole numbers [Q, N], got {codes.dtype} of shape {codes.shape}")
        frames = -(-self.num_samples // self.hop)
        if not len(codes) or codes.shape != (len(self.codebook_sizes), frames):
            raise TokenError(
                f"codes {codes.shape} do not fit {len(self.codebook_sizes)} codebooks and {frames} frames"
                f" (ceil({self.num_samples} samples / hop {self.hop}))"
            )
        for level, (row, size) in enumerate(zip(codes, self.codebook_sizes, strict=True), self.first_level):
            if int(row.min()) < 0 or int(row.max()) >= size:
                raise TokenError(f"level {level}: codes {row.min()}..{row.max()} leave the codebook of {size}")
        return frozen(codes, smallest_type(max(self.codebook_sizes) - 1))

    def _check_semantic_levels(self) -> None:
        stop = self.first_level + self.levels
        levels = self.semantic_levels
        if list(levels) != sorted(set(levels)) or any(not self.first_level <= q < stop for q in levels):
            present = f"{self.first_level}..{stop - 1}"
            raise TokenError(f"semantic levels {levels} must rise within the levels present, {present}")

    @property
    def levels(self) -> int:
        """Q, the number of quantizer levels present."""
        return self.packed.shape[0]

    @property
    def frames(self) -> int:
        """N, the number of frames."""
        return self.packed.shape[1]

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    @property
    def bitrate(self) -> float:
        """bit/s of the levels present with fixed-length codes: frame rate times the sum of log2(codebook
        size).
        """
        return nominal_bitrate(self.frame_rate, self.codebook_sizes)

    @property
    def semantic(self) -> "Tokens":
        """Only the semantic levels. Raises TokenError where there is none, or they do not stand together."""
        return self._only(self.semantic_levels, "semantic")

    @property
    def acoustic(self) -> "Tokens":
        """All levels but the semantic ones. Raises TokenError as `semantic` does."""
        present = range(self.first_level, self.first_level + self.levels)
        return self._only([q for q in present if q not in self.semantic_levels], "acoustic")

    def take(self, k: int) -> "Tokens":
        """The first (coarsest) `k` of the levels present. Raises TokenError unless 1 <= k <= levels."""
        k = whole("the number of levels", k, 1)
        if k > self.levels:
            raise TokenError(f"cannot take {k} levels of {self.levels}")
        return self._slice(0, k)

    def between(self, start: int, stop: int) -> np.ndarray:
        """Codes of the frames from `start` to before `stop`, int64 [Q, n]; the others are not widened."""
        return self.packed[:, start:stop].astype(np.int64)

    def _only(self, levels: Sequence[int], kind: str) -> "Tokens":
        if not levels:
            raise TokenError(f"tokens of {self.tokenizer} hold no {kind} level")
        if levels[-1] - levels[0] + 1 != len(levels):
            raise TokenError(f"the {kind} levels {tuple(levels)} of {self.tokenizer} do not stand together")
        return self._slice(levels[0] - self.first_level, levels[-1] - self.first_level + 1)

    def _slice(self, start: int, stop: int) -> "Tokens":
        first, end = self.first_level + start, self.first_level + stop
        return replace(
            self,
            codes=self.packed[start:stop],
            codebook_sizes=self.codebook_sizes[start:stop],
            semantic_levels=tuple(q for q in self.semantic_levels if first <= q < end),
            first_level=first,
        )

    @property
    def payload(self) -> np.ndarray:
        """`codes`."""
        return self.codes

    @property
    def content(self) -> str:
        """Such as "8 x 50 codes"."""
        return f"{self.levels} x {self.frames} codes"

    def describe(self) -> dict[str, Any]:
        """Fields and what follows from them, as plain types."""
        derived = {"frame_rate": self.frame_rate, "frames": self.frames, "levels": self.levels}
        return super().describe() | derived

    def __repr__(self) -> str:
        shape = f"{self.levels} x {self.frames}"
        return f"Tokens({self.tokenizer}, {shape}, {self.seconds:.3f} s, {self.bitrate:.0f} bit/s)"

    def _tensors(self) -> Tensors:
        tensors = {"codes": self.packed}
        if self.timbre is not None:
            tensors["timbre"] = self.timbre
        return tensors

    @classmethod
    def _from_file(cls, fields: dict[str, Any], tensors: Tensors) -> "Tokens":
        known = {name: fields[name] for name in cls.FIELDS}
        return cls(codes=tensors["codes"], timbre=tensors.get("timbre"), **known)


def _checked_timbre(timbre: object) -> np.ndarray:
    array = np.asarray(timbre)
    if array.ndim != 1 or array.dtype.kind != "f" or not len(array):
        raise TokenError(f"timbre must be floating point [D], got {array.dtype} of shape {array.shape}")
    array = frozen(array, np.float32)
    if not np.isfinite(array).all():
        raise TokenError("timbre holds NaN or infinite values")
    return array
