"""Which number means what: text, special ids, the codes of every level, durations, merged units.

A language model sees one row of numbers. The map is a small JSON file that names every range by its first number and
its size, and the tokenizer whose codes they are, so that nobody has to guess an offset.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np

from speechtok.checks import whole, wholes
from speechtok.errors import TokenError, TokenFileError
from speechtok.files import StrPath, write_text_atomic
from speechtok.layouts.jsonfile import read_json, require_format
from speechtok.layouts.merges import Merges
from speechtok.tokens import Tokens

FORMAT, VERSION = "speechtok.vocabulary", 1
SPECIAL = ("bos", "eos", "pad", "sep")
_TOKENIZER = (
    "tokenizer", "fingerprint", "sample_rate", "hop", "codebook_sizes", "semantic_levels", "first_level",
)  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of a language model over the levels of one tokenizer; `Vocabulary.of` builds it.

    Text has 0 .. text_size-1. `bos`, `eos`, `pad`, `sep` are distinct and may lie among the text's numbers, as in a
    text model that has them already. Level `first_level + i` has `codebook_sizes[i]` numbers from `level_starts[i]`
    on. Levels either all start at one number ("shared": place tells them apart) or do not overlap. Duration `d`
    (in frames, from 1 to `durations`) has `duration_start + d - 1`; unit `i` of `merges` has `merge_start + i`.
    Raises TokenError for a contradiction.
    """

    tokenizer: str
    fingerprint: str
    sample_rate: int
    hop: int
    codebook_sizes: tuple[int, ...]
    semantic_levels: tuple[int, ...]
    first_level: int
    text_size: int
    bos: int
    eos: int
    pad: int
    sep: int
    level_starts: tuple[int, ...]
    duration_start: int = 0
    durations: int = 0
    merge_start: int = 0
    merges: Merges = field(default_factory=Merges)

    def __post_init__(self) -> None:
        put = partial(object.__setattr__, self)  # the class is frozen
        for name in ("text_size", *SPECIAL, "duration_start", "durations", "merge_start"):
            put(name, whole(name, getattr(self, name), 0))
        put("level_starts", wholes("level_starts", self.level_starts, 0))
        for name in ("codebook_sizes", "semantic_levels"):
            put(name, wholes(name, getattr(self, name), 0))
        self.tokens(np.zeros((len(self.codebook_sizes), 1), np.int64))  # tokens check their own fields
        if len(self.level_starts) != self.levels:
            raise TokenError(f"{self.levels} levels need as many level_starts, not {len(self.level_starts)}")
        if self.merges and self.merges.base != self.code_count:
            raise TokenError(f"merges over {self.merges.base} units do not fit {self.code_count} codes")
        self._check_ranges()

    def _check_ranges(self) -> None:
        special = [getattr(self, name) for name in SPECIAL]
        if len(set(special)) < len(special):
            raise TokenError(f"{', '.join(SPECIAL)} must be four numbers, not {special}")
        ranges = sorted((first, first + size, name) for name, first, size in self._blocks() if size)
        for (_, stop, one), (first, _, other) in pairwise(ranges):
            if first < stop:
                raise TokenError(f"the numbers of {one} and {other} overlap at {first}")
        for name, number in zip(SPECIAL, special, strict=True):
            for first, stop, other in ranges:
                if first <= number < stop and other != "text":
                    raise TokenError(f"{name} is {number}, which belongs to {other}")

    def _blocks(self) -> list[tuple[str, int, int]]:
        """Name, first number and size of everything that may not overlap; shared levels are one block."""
        blocks = [("text", 0, self.text_size)]
        if self.shared:
            blocks.append(("the levels", self.level_starts[0], max(self.codebook_sizes)))
        else:
            levels = range(self.first_level, self.first_level + self.levels)
            sizes = zip(levels, self.level_starts, self.codebook_sizes, strict=True)
            blocks += [(f"level {level}", first, size) for level, first, size in sizes]
        return [*blocks, ("durations", self.duration_start, self.durations),
                ("merges", self.merge_start, len(self.merges))]  # fmt: skip

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        *,
        text_size: int = 0,
        special: Mapping[str, int] | None = None,
        shared: bool = False,
        durations: int = 0,
    ) -> Vocabulary:
        """The map for the levels of these tokens, without gaps: text, special ids, levels, durations.

        Args:
            tokens: of the tokenizer, with the levels that shall have numbers.
            text_size: how many numbers a text vocabulary has already; 0 for speech alone.
            special: numbers that the text vocabulary has for some of bos, eos, pad, sep; the others get new ones.
            shared: all levels use the same numbers.
            durations: the longest duration, in frames, that the layout `dedup` can say at once.

        Raises:
            TokenError: a number that is no whole one, or ids that meet.
        """
        given = dict(special or {})
        unknown = [name for name in given if name not in SPECIAL]
        if unknown:
            raise TokenError(f"{unknown[0]!r} is no special id; they are {', '.join(SPECIAL)}")
        free = max([whole("text_size", text_size, 0), *(whole(name, at, 0) + 1 for name, at in given.items())])
        for name in SPECIAL:
            if name not in given:
                given[name], free = free, free + 1
        steps = [0] * tokens.levels if shared else np.cumsum([0, *tokens.codebook_sizes[:-1]]).tolist()
        starts = tuple(free + step for step in steps)
        free = max(start + size for start, size in zip(starts, tokens.codebook_sizes, strict=True))
        fields = {name: getattr(tokens, name) for name in _TOKENIZER}
        numbers = {"text_size": text_size, "level_starts": starts, "duration_start": free, "durations": durations}
        return cls(**fields, **given, **numbers)

    def with_merges(self, merges: Merges) -> Vocabulary:
        """This map with numbers for merged units after all others; earlier ones are dropped."""
        without = replace(self, merges=Merges(), merge_start=0)
        return replace(without, merges=merges, merge_start=without.size) if merges else without

    @property
    def levels(self) -> int:
        """Q, the number of quantizer levels that have numbers."""
        return len(self.codebook_sizes)

    @property
    def shared(self) -> bool:
        """Whether several levels use the same numbers."""
        return len(self.level_starts) > 1 and len(set(self.level_starts)) == 1

    @property
    def size(self) -> int:
        """Numbers that an embedding table needs: the largest one plus 1."""
        special = max(getattr(self, name) for name in SPECIAL)
        return max(special + 1, *(first + size for _, first, size in self._blocks() if size))

    @property
    def code_count(self) -> int:
        """How many numbers mean a code."""
        return max(self.codebook_sizes) if self.shared else sum(self.codebook_sizes)

    @cached_property
    def code_ids(self) -> np.ndarray:
        """Every number that means a code, rising, int64."""
        ranges = zip(self.level_starts, self.codebook_sizes, strict=True)
        return np.unique(np.concatenate([np.arange(first, first + size) for first, size in ranges]))

    def tokens(self, codes: np.ndarray, num_samples: int | None = None, timbre: np.ndarray | None = None) -> Tokens:
        """Tokens of this tokenizer from `codes[Q, N]`; as many samples as N whole frames have, if not told.

        Raises TokenError where the codes do not fit the codebooks, or the samples do not fit the frames.
        """
        fields = {name: getattr(self, name) for name in _TOKENIZER}
        samples = codes.shape[1] * self.hop if num_samples is None else num_samples
        return Tokens(codes=codes, num_samples=samples, timbre=timbre, **fields)

    def require(self, tokens: Tokens) -> None:
        """Raise TokenFileError unless these tokens come from this tokenizer and have exactly these levels."""
        require_fingerprint("this vocabulary", self.fingerprint, tokens.fingerprint, tokens.tokenizer)
        for name in ("first_level", "codebook_sizes"):
            if getattr(self, name) != getattr(tokens, name):
                raise TokenFileError(
                    f"this vocabulary has {name} {getattr(self, name)}, the tokens have {getattr(tokens, name)}; "
                    "take the same levels of the tokens, or make a vocabulary of them"
                )

    def select(self, tokens: Tokens) -> Tokens:
        """These levels of tokens that may have more. Raises TokenFileError as `require`, or where one is missing."""
        require_fingerprint("this vocabulary", self.fingerprint, tokens.fingerprint, tokens.tokenizer)
        start = self.first_level - tokens.first_level
        if start < 0 or start + self.levels > tokens.levels:
            wanted = f"{self.first_level}..{self.first_level + self.levels - 1}"
            present = f"{tokens.first_level}..{tokens.first_level + tokens.levels - 1}"
            raise TokenFileError(f"the vocabulary has levels {wanted}, the tokens only {present}; encode more levels")
        chosen = self.tokens(tokens.codes[start : start + self.levels], tokens.num_samples, tokens.timbre)
        if tokens.codebook_sizes[start : start + self.levels] != self.codebook_sizes:
            self.require(tokens)
        return chosen

    def meaning(self, number: int) -> str:
        """What a number stands for, in words for an error message."""
        for name in SPECIAL:
            if number == getattr(self, name):
                return name
        for name, first, size in self._blocks():
            if first <= number < first + size:
                at = number - first
                return {
                    "durations": f"a duration of {at + 1}",
                    "merges": f"merged unit {at}",
                    "text": f"text {at}",
                }.get(name, f"code {at} of {name}")
        return "no id of the vocabulary"

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON; ranges are written out as first number and size."""
        levels = zip(self.level_starts, self.codebook_sizes, strict=True)
        return {
            "format": FORMAT,
            "version": VERSION,
            **{name: getattr(self, name) for name in _TOKENIZER if name != "codebook_sizes"},
            "size": self.size,
            "text": {"first": 0, "size": self.text_size},
            "special": {name: getattr(self, name) for name in SPECIAL},
            "levels": [
                {"level": level, "first": first, "size": size}
                for level, (first, size) in enumerate(levels, self.first_level)
            ],
            "durations": {"first": self.duration_start, "size": self.durations},
            "merges": {"first": self.merge_start, "size": len(self.merges), "pairs": self.merges.pairs},
        }

    @classmethod
    def from_dict(cls, values: Any, where: str, fingerprint: str | None = None) -> Vocabulary:
        """What `to_dict` gave.

        Args:
            values: as JSON gives them.
            where: named in error messages.
            fingerprint: of the tokenizer that will be used with it, if known.

        Raises:
            TokenFileError: not a vocabulary, a contradiction, a newer version, or of another tokenizer.
        """
        require_format(values, FORMAT, VERSION, where, "write it again with `speechtok layout`")
        try:
            levels = values["levels"]
            fields = {name: values[name] for name in _TOKENIZER if name != "codebook_sizes"}
            made = cls(
                **fields,
                codebook_sizes=[level["size"] for level in levels],
                text_size=values["text"]["size"],
                **{name: values["special"][name] for name in SPECIAL},
                level_starts=[level["first"] for level in levels],
                duration_start=values["durations"]["first"],
                durations=values["durations"]["size"],
            )
            pairs = tuple(tuple(pair) for pair in values["merges"]["pairs"])
            if pairs:
                merges = Merges(made.code_count, pairs)
                made = replace(made, merges=merges, merge_start=values["merges"]["first"])
        except (TokenError, KeyError, TypeError, ValueError, RecursionError, MemoryError) as error:
            raise TokenFileError(f"{where}: contradicts itself or lacks a field ({error}); write it again") from error
        if fingerprint is not None:
            require_fingerprint(where, made.fingerprint, fingerprint)
        return made

    def save(self, path: StrPath) -> None:
        """Write the JSON file, whole or not at all. Raises OutputError where the place cannot be written."""
        write_text_atomic(path, json.dumps(self.to_dict(), ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: StrPath, fingerprint: str | None = None) -> Vocabulary:
        """Read a file written by `save`.

        Raises TokenFileError when it is missing, damaged, of a newer release, or, where `fingerprint` is given, made
        for another tokenizer.
        """
        return cls.from_dict(read_json(path), os.fspath(path), fingerprint)


def require_fingerprint(where: str, made_for: str, given: str, name: str = "the tokenizer") -> None:
    """Raise TokenFileError where numbers made for one tokenizer would be used with another."""
    if made_for != given:
        raise TokenFileError(
            f"{where} was made for another tokenizer ({made_for}) than {name} ({given}); "
            "its numbers mean other sounds: use the tokenizer it was made for, or make it anew"
        )
