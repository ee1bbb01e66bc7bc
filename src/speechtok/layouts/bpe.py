"""Acoustic byte-pair encoding: sequences of units that occur often become units of their own.

Applied to the numbers of the flat layout, so it serves one level (the usual case: review "Recent Advances in Discrete
Speech Tokens", arXiv 2502.06490, section on length reduction) as well as several interleaved ones. Unlike
deduplication it keeps durations, as merged repetitions. The `tokenizers` library learns and applies the merges: every
unit is one character of Unicode's supplementary private use areas. Undoing them needs numpy alone.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from speechtok.checks import whole
from speechtok.errors import ConfigError
from speechtok.layouts.base import Fault, Layout, Parsed, register
from speechtok.layouts.blocks import Flat
from speechtok.layouts.merges import MAX_UNIT, Merges
from speechtok.layouts.vocabulary import Vocabulary
from speechtok.tokens import Tokens

_AREAS = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
MOST_UNITS = sum(len(area) for area in _AREAS)
LEAST_COUNT = 2
"""A pair that occurs once saves nothing that would be met again."""


def train_bpe(vocabulary: Vocabulary, utterances: Iterable[Tokens], size: int) -> Vocabulary:
    """Learn merges and give them numbers.

    Args:
        vocabulary: of the levels to be merged; earlier merges in it are dropped.
        utterances: of its tokenizer and levels. No merge crosses from one to the next.
        size: units wanted, the codes of the levels among them. Fewer are made where no pair occurs twice.

    Returns:
        the vocabulary with merges, at its end.

    Raises:
        ConfigError: ``size`` leaves no merge, there are too many codes, no utterance, or `tokenizers` is missing.
        TokenFileError: an utterance of another tokenizer or of other levels.
    """
    base = vocabulary.code_count
    if whole("size", size, 1) <= base or base > MOST_UNITS:
        limits = f"more than the {base} codes of its levels" if base <= MOST_UNITS else f"at most {MOST_UNITS} codes"
        raise ConfigError(f"byte-pair encoding to {size} units needs {limits}; choose another size or fewer levels")
    library = _library()
    model = library.Tokenizer(library.models.BPE())
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=_characters(np.arange(base)),
        min_frequency=LEAST_COUNT,
        max_token_length=MAX_UNIT,
        show_progress=False,
    )
    seen = _Counted(Bpe(vocabulary).spell(tokens) for tokens in utterances)
    model.train_from_iterator(seen, trainer)
    if not seen.count:
        raise ConfigError("byte-pair encoding has nothing to learn from: no utterance was given")
    learned = json.loads(model.to_str())["model"]["merges"]
    return vocabulary.with_merges(_numbered(learned, base))


@register
class Bpe(Layout):
    """The flat layout with the vocabulary's merges applied; without merges it is the flat layout."""

    name: ClassVar[str] = "bpe"

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary)
        self._flat = Flat(vocabulary)

    def spell(self, tokens: Tokens) -> str:
        """The tokens as one word, a character for each unit; raises TokenFileError for other tokens' numbers."""
        ids = self._flat.encode(tokens)
        return "".join(_characters(np.searchsorted(self.vocabulary.code_ids, ids)))

    def _lay(self, codes: np.ndarray) -> np.ndarray:
        ids = self._flat._lay(codes)
        if not self.vocabulary.merges:
            return ids
        word = "".join(_characters(np.searchsorted(self.vocabulary.code_ids, ids[0])))
        return self._ids[np.array(self._model.encode(word).ids)][None]

    def _parse(self, ids: np.ndarray) -> Parsed:
        merged = self.vocabulary.merges.merged
        units = ids[0] - self.vocabulary.merge_start
        is_merged = (units >= 0) & (units < len(merged))
        pieces = [
            self.vocabulary.code_ids[list(merged[unit])] if inside else ids[0, at : at + 1]
            for at, (unit, inside) in enumerate(zip(units.tolist(), is_merged.tolist(), strict=True))
        ]
        flat = np.concatenate([*pieces, np.zeros(0, np.int64)])
        codes, fault = self._flat._parse(flat[None])
        if fault:
            owner = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
            at = int(owner[fault.at]) if fault.at < len(owner) else len(pieces)
            fault = Fault(at, fault.why)
        return Parsed(codes, fault)

    @cached_property
    def _ids(self) -> np.ndarray:
        """The number of each unit: codes, then merged ones."""
        merged = np.arange(len(self.vocabulary.merges)) + self.vocabulary.merge_start
        return np.concatenate([self.vocabulary.code_ids, merged])

    @cached_property
    def _model(self) -> Any:
        library, merges = _library(), self.vocabulary.merges
        characters = _characters(np.arange(merges.base))
        spelled = characters + ["".join(characters[one] for one in unit) for unit in merges.merged]
        vocab = {word: number for number, word in enumerate(spelled)}
        pairs = [(spelled[one], spelled[other]) for one, other in merges.pairs]
        return library.Tokenizer(library.models.BPE(vocab=vocab, merges=pairs))


class _Counted:
    """An iterator that remembers how many there were."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words, self.count = words, 0

    def __iter__(self) -> Iterator[str]:
        for word in self._words:
            self.count += 1
            yield word


def _characters(units: np.ndarray) -> list[str]:
    first, second = _AREAS
    points = np.where(units < len(first), first.start + units, second.start + units - len(first))
    return [chr(point) for point in points.tolist()]


def _numbered(learned: list[list[str]], base: int) -> Merges:
    """Pairs of words as pairs of numbers, in the order in which `Merges` numbers what they make."""
    number = {word: unit for unit, word in enumerate(_characters(np.arange(base)))}
    pairs = []
    for one, other in learned:
        pairs.append((number[one], number[other]))
        number.setdefault(one + other, len(number))
    return Merges(base, tuple(pairs))


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ConfigError("byte-pair encoding needs tokenizers; pip install 'speechtok[layouts]'") from error
