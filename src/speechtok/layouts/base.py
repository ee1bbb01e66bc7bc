"""The contract of every layout: tokens to what a language model reads, and back, exactly.

What all layouts share is here: ids around the content, where generation stopped, and what happens when a model wrote
something that no tokens give.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from speechtok.checks import whole
from speechtok.errors import ConfigError, TokenError
from speechtok.layouts.vocabulary import Vocabulary
from speechtok.tokens import Tokens


class Fault(NamedTuple):
    """The first place where a sequence stops being one that tokens give."""

    at: int
    """Position (step) within the content; the content's length where something is missing at its end."""
    why: str


class Parsed(NamedTuple):
    """What a sequence holds up to its first fault."""

    codes: np.ndarray
    """``[Q, M]``: the whole frames before the fault."""
    fault: Fault | None


class Layout(ABC):
    """Tokens with the levels of one vocabulary <-> sequences of its ids.

    A sequence is int64 ``[T]``, or ``[Q, T]`` where a layout is ``parallel``: Q streams that are read at the same time.
    """

    name: ClassVar[str]
    parallel: ClassVar[bool] = False

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    @property
    def streams(self) -> int:
        """How many ids every step has."""
        return self.vocabulary.levels if self.parallel else 1

    @property
    def options(self) -> dict[str, Any]:
        """What ``get`` needs besides name and vocabulary to build this layout again; plain types."""
        return {}

    @abstractmethod
    def _lay(self, codes: np.ndarray) -> np.ndarray:
        """``codes[Q, N]`` -> content ``[streams, T]``."""

    @abstractmethod
    def _parse(self, ids: np.ndarray) -> Parsed:
        """Content ``[streams, T]``, any numbers at all -> what it holds."""

    def encode(self, tokens: Tokens, *, bos: bool = False, eos: bool = False) -> np.ndarray:
        """The sequence of these tokens: int64 ``[T]``, or ``[Q, T]`` for parallel layouts.

        The number of samples within the last frame, and the timbre, are not in it: give them to ``decode``.

        Args:
            tokens: of the vocabulary's tokenizer, with exactly its levels.
            bos: put one step of bos before the content.
            eos: put one step of eos after it.

        Raises:
            TokenFileError: tokens of another tokenizer, or of other levels.
        """
        self.vocabulary.require(tokens)
        step = np.ones((self.streams, 1), np.int64)
        parts = [step * self.vocabulary.bos] * bos + [self._lay(tokens.codes)] + [step * self.vocabulary.eos] * eos
        ids = np.concatenate(parts, axis=1)
        return ids if self.parallel else ids[0]

    def decode(
        self,
        sequence: Any,
        *,
        num_samples: int | None = None,
        timbre: np.ndarray | None = None,
        strict: bool = True,
    ) -> Tokens:
        """The tokens of a sequence, written by ``encode`` or by a model.

        A bos at the start is skipped, and so is padding at the end; eos ends the content.

        Args:
            sequence: whole numbers ``[T]``, or ``[Q, T]`` for parallel layouts.
            num_samples: of the audio; as many as whole frames have, if not told.
            timbre: what the tokens had beside their codes.
            strict: whether the sequence must be valid to its end. If not, everything from the first fault on is left
                out, as are frames without all levels, and frames beyond ``num_samples``.

        Raises:
            TokenError: names the first position that is wrong and why; or not one frame is whole; or the frames
                are too many or too few for ``num_samples``.
        """
        content, start, fault = self._content(self._checked(sequence))
        codes, inner = self._parse(content)
        fault = Fault(start + inner.at, inner.why) if inner else fault
        if fault and strict:
            raise TokenError(f"position {fault.at}: {fault.why}")
        if not codes.shape[1]:
            raise TokenError(f"position {fault.at if fault else start}: {fault.why if fault else 'no frame is there'}")
        if num_samples is not None and not strict:
            num_samples = whole("num_samples", num_samples, 1)
            codes = codes[:, : -(-num_samples // self.vocabulary.hop)]
            num_samples = min(num_samples, codes.shape[1] * self.vocabulary.hop)
        return self.vocabulary.tokens(codes, num_samples, timbre)

    def _checked(self, sequence: Any) -> np.ndarray:
        try:
            ids = np.asarray(sequence)
        except ValueError as error:
            raise TokenError(f"{self.name} reads one array, not rows of several lengths ({error})") from error
        shape = f"[{self.streams}, T]" if self.parallel else "[T]"
        fits = ids.ndim == 2 and len(ids) == self.streams if self.parallel else ids.ndim == 1
        if not fits or (ids.dtype.kind not in "iu" and ids.size):
            raise TokenError(f"{self.name} reads whole numbers {shape}, not {ids.dtype} of shape {list(ids.shape)}")
        return ids.astype(np.int64).reshape(self.streams, -1)

    def _content(self, ids: np.ndarray) -> tuple[np.ndarray, int, Fault | None]:
        """What lies between bos and eos or padding, where it starts, and what is wrong behind eos."""
        special = self.vocabulary
        start = int(ids.shape[1] > 0 and (ids[:, 0] == special.bos).all())
        ends = np.flatnonzero((ids[:, start:] == special.eos).all(axis=0))
        padding = (ids == special.pad).all(axis=0)
        if not len(ends):
            filled = np.flatnonzero(~padding)
            return ids[:, start : filled[-1] + 1 if len(filled) else start], start, None
        end = start + int(ends[0])
        after = np.flatnonzero(~padding[end + 1 :])
        fault = None
        if len(after):
            at = end + 1 + int(after[0])
            fault = Fault(at, f"{self._show(ids[:, at])} follows eos, where only padding may")
        return ids[:, start:end], start, fault

    def _show(self, ids: np.ndarray) -> str:
        return ", ".join(f"{number} ({self.vocabulary.meaning(int(number))})" for number in ids)


Kind = TypeVar("Kind", bound=type[Layout])
LAYOUTS: dict[str, type[Layout]] = {}


def register(kind: Kind) -> Kind:
    """Class decorator: make a layout known to ``get`` by its ``name``."""
    LAYOUTS[kind.name] = kind
    return kind


def find(name: str) -> type[Layout]:
    """The class of that name; raises ConfigError where there is none."""
    if name not in LAYOUTS:
        raise ConfigError(f"there is no layout {name!r}; the layouts are {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[name]


def get(name: str, vocabulary: Vocabulary, **options: Any) -> Layout:
    """A layout by name.

    Args:
        name: one of ``LAYOUTS``.
        vocabulary: which ids mean what.
        options: of this layout, such as ``delays`` for "delay".

    Raises:
        ConfigError: no such layout or option, or the vocabulary lacks ids that the layout needs.
    """
    build: Callable[..., Layout] = find(name)
    try:
        return build(vocabulary, **options)
    except TypeError as error:
        raise ConfigError(f"layout {name!r}: {error}") from error


def wrong_code(vocabulary: Vocabulary, number: int, level: int) -> str:
    """Why this id cannot stand where a code of row ``level`` is due."""
    due = f"a code of level {vocabulary.first_level + level} is due"
    return f"{number} ({vocabulary.meaning(number)}) where {due}"


def codes_of(vocabulary: Vocabulary, ids: np.ndarray, rows: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of ids that stand where rows ``rows`` of the levels are due (broadcast), and which of them are codes."""
    starts, sizes = np.array(vocabulary.level_starts), np.array(vocabulary.codebook_sizes)
    codes = ids - starts[rows]
    return codes, (codes >= 0) & (codes < sizes[rows])
