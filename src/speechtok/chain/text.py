"""The text that recogniser and speaker share: byte-pair encoding of English in the project's plain form.

One vocabulary serves both sides of the chain, because rows of the recogniser's decoder are handed to the speaker's
text embedding (TokenChain, arXiv 2510.06201). Merges are learned and applied by the `tokenizers` library.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import string
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from speechtok.errors import CheckpointError, ConfigError
from speechtok.guidance.writing import plain

FORMAT = "speechtok.text"
TEXT = "text.json"
"""What the file is called in the folder of a model."""
SPECIALS = ("<pad>", "<eos>")
MARK = "\u2581"
"""Written before every word, so that spaces are part of the symbols."""
ALPHABET = (MARK, "'", *string.ascii_lowercase)
"""Symbols that every vocabulary has; whatever else the texts hold is added to them."""


class TextVocabulary:
    """Numbers for pieces of words: 0 pads (and is CTC's blank), 1 begins and ends texts, pieces follow.

    Args:
        symbols: all symbols by number, the two specials first.
        merges: pairs of symbols that become one, in the order in which they were learned.
    """

    pad = 0
    bos = eos = 1
    """One symbol: at the beginning nothing else can be meant than at the end."""

    def __init__(self, symbols: Sequence[str], merges: Sequence[tuple[str, str]]):
        self.symbols, self.merges = tuple(symbols), tuple((one, other) for one, other in merges)

    @property
    def size(self) -> int:
        """Number of symbols, the specials among them."""
        return len(self.symbols)

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> TextVocabulary:
        """Learn pieces from texts, which are put into the plain form first.

        Args:
            size: symbols wanted, the specials among them; fewer are made where no pair occurs twice.

        Raises:
            ConfigError: ``size`` leaves no room for the letters, no text has a word, or `tokenizers` is missing.
        """
        texts = [text for text in map(plain, texts) if text]
        if not texts:
            raise ConfigError("a text vocabulary has nothing to learn from: no text has any word")
        alphabet = sorted({*ALPHABET, *"".join(texts).replace(" ", MARK)})
        least = len(SPECIALS) + len(alphabet)
        if size < least:
            raise ConfigError(f"a text vocabulary of {size} has no room for the letters; ask for at least {least}")
        library = _library()
        model = _pieces(library, library.models.BPE())
        trainer = library.trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=list(SPECIALS),
            initial_alphabet=alphabet,
            min_frequency=2,
            show_progress=False,
        )
        model.train_from_iterator(texts, trainer)
        learned = json.loads(model.to_str())["model"]
        symbols = sorted(learned["vocab"], key=learned["vocab"].__getitem__)
        return cls(symbols, [tuple(pair) for pair in learned["merges"]])

    def encode(self, text: str) -> list[int]:
        """Numbers of a text in the plain form, none of them special.

        Raises:
            ConfigError: the text has no word, or symbols that the vocabulary lacks.
        """
        written = plain(text)
        if not written:
            raise ConfigError(f"the text {text!r} has no word in it; give letters")
        unknown = self.unknown(text)
        if unknown:
            raise ConfigError(f"unknown symbols {' '.join(unknown)} in the text {_short(text)!r}; spell them in words")
        return self._model.encode(written, add_special_tokens=False).ids

    def unknown(self, text: str) -> list[str]:
        """Symbols of a text in the plain form that the vocabulary lacks."""
        return sorted(set(plain(text).replace(" ", MARK)) - self._letters)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of numbers; specials are left out.

        Raises:
            ConfigError: a number that is none of the vocabulary's.
        """
        return "".join(self._spelled(ids)).replace(MARK, " ").strip()

    def to_json(self) -> str:
        """The same text for the same vocabulary."""
        merges = [list(pair) for pair in self.merges]
        about = {"format": FORMAT, "version": 1, "symbols": list(self.symbols), "merges": merges}
        return json.dumps(about, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str = "text.json") -> TextVocabulary:
        """Inverse of ``to_json``; ``where`` is named in errors.

        Raises:
            CheckpointError: the text is none of ours.
        """
        try:
            about = json.loads(text)
            if (about["format"], about["version"]) != (FORMAT, 1):
                raise ValueError("another format or version")
            found = cls(about["symbols"], [(one, other) for one, other in about["merges"]])
            known = set(found.symbols)
            if not all(isinstance(symbol, str) for symbol in known) or found.symbols[:2] != SPECIALS:
                raise ValueError("symbols that are none")
            if len(known) != found.size or not all({one, two, one + two} <= known for one, two in found.merges):
                raise ValueError("merges of symbols that do not exist")
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{where}: is no text vocabulary of speechtok ({error}); fetch it again") from error
        return found

    @cached_property
    def digest(self) -> str:
        """By which a model knows its vocabulary again."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @cached_property
    def _letters(self) -> frozenset[str]:
        return frozenset(symbol for symbol in self.symbols if len(symbol) == 1)

    @cached_property
    def _model(self) -> Any:
        library = _library()
        vocab = {symbol: number for number, symbol in enumerate(self.symbols)}
        return _pieces(library, library.models.BPE(vocab=vocab, merges=list(self.merges)))

    def _spelled(self, ids: Iterable[int]) -> Iterator[str]:
        for number in map(int, ids):
            if not 0 <= number < self.size:
                raise ConfigError(f"text number {number} does not exist; this vocabulary has 0 to {self.size - 1}")
            if number >= len(SPECIALS):
                yield self.symbols[number]


def read_vocabulary(path: str | Path) -> TextVocabulary:
    """The vocabulary of a ``text.json``, or of the folder of a model that has one.

    Raises:
        CheckpointError: there is none that can be read.
    """
    path = Path(path)
    path = path / TEXT if path.is_dir() else path
    try:
        return TextVocabulary.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); name a {TEXT} or a folder that has one") from error


def _pieces(library: Any, model: Any) -> Any:
    tokenizer = library.Tokenizer(model)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always")
    return tokenizer


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ConfigError("text vocabularies need tokenizers; pip install 'speechtok[text]'") from error
