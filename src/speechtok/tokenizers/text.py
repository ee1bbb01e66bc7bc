"""Scheme D: text tokens. A recogniser writes down what was said, and a text vocabulary turns that into ids.

Text is not frame-synchronous, so ``encode`` gives ``TextTokens`` instead of codes on frames, and ``decode`` gives the
text. How it was said is lost; audio is the business of a text-to-speech system.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from speechtok.errors import CheckpointError, ConfigError, NotSupportedError, TokenError
from speechtok.files import write_text_atomic
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.fingerprint import RESAMPLER, fingerprint_of
from speechtok.tokenizers.folder import ModelFolder, make_folder, part_of, write_folder
from speechtok.tokenizers.recognisers import (
    Recogniser,
    Transcript,
    TransformersRecogniser,
    load_recogniser,
    pieces,
    vocabulary_facts,
)
from speechtok.tokenizers.registry import located

CODE_VERSION = 1
"""Raised whenever a change of this package changes the ids that the same weights give."""
BPE = "bpe.json"
PIECE_SECONDS = 30.0
"""Longest audio that is recognised at once, where nobody says otherwise; Whisper hears no more."""


class Vocabulary(Protocol):
    """Text to ids and back."""

    size: int

    @property
    def facts(self) -> Any:
        """What decides the ids, as JSON values, for the fingerprint."""

    def encode(self, text: str) -> list[int]:
        """Ids below ``size``."""

    def decode(self, ids: Sequence[int]) -> str:
        """Inverse of ``encode``, as far as the vocabulary can tell texts apart."""


class BytePairs:
    """A tokenizer file of the ``tokenizers`` library."""

    def __init__(self, path: str | Path):
        """
        Raises:
            CheckpointError: it cannot be read.
            ConfigError: the library is not installed.
        """
        try:
            from tokenizers import Tokenizer as Pairs
        except ImportError as error:
            raise ConfigError("text vocabularies need tokenizers; pip install 'speechtok[text]'") from error
        try:
            self._pairs = Pairs.from_str(Path(path).read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path}: no vocabulary of the tokenizers library ({error}); restore it") from error
        self.size = self._pairs.get_vocab_size()

    @property
    def facts(self) -> Any:
        return self._pairs.to_str()

    def encode(self, text: str) -> list[int]:
        return self._pairs.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._pairs.decode(list(ids)).strip()


class ModelVocabulary:
    """The vocabulary that a ``transformers`` recogniser brings along."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self.size = len(tokenizer)

    @property
    def facts(self) -> Any:
        return vocabulary_facts(self._tokenizer)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        grouped = {"group_tokens": False} if hasattr(self._tokenizer, "word_delimiter_token") else {}
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, **grouped).strip()


class TextTokenizer(Tokenizer):
    """What was said, as ids."""

    value = TextTokens
    scheme = "D"
    hop = None  # type: ignore[assignment]
    codebook_sizes = ()
    semantic_levels = ()
    exact_windows = (False, True)

    def __init__(
        self,
        recogniser: Recogniser,
        vocabulary: Vocabulary,
        name: str,
        *,
        licence: str = "not stated",
        note: str = "",
        piece_seconds: float = PIECE_SECONDS,
    ):
        """
        Args:
            recogniser: hears words.
            vocabulary: numbers them.
            name: what messages and token files call it.
            licence: of the weights.
            note: what a user of this very model must know.
            piece_seconds: longer audio is cut in pauses and recognised piece by piece.
        """
        self.recogniser, self.vocabulary = recogniser, vocabulary
        self.name, self.licence, self.note, self.piece_seconds = name, licence, note, piece_seconds
        self.sample_rate = recogniser.sample_rate

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the recogniser, the vocabulary, the resampler and the code version."""
        facts = [self.recogniser.facts, self.vocabulary.facts, self.piece_seconds]
        return fingerprint_of(["text", CODE_VERSION, RESAMPLER, *facts], {})

    @property
    def frame_rate(self) -> float:
        """Text has none.

        Raises:
            NotSupportedError: always.
        """
        raise NotSupportedError(f"{self.name} gives text, which has no frames and no fixed rate")

    @property
    def bitrate(self) -> float:
        """Text has none of its own; ``tokens.bitrate`` says it of one utterance. Raises NotSupportedError."""
        return self.frame_rate

    def checked_levels(self, levels: int | None) -> int:
        """Nothing to choose from.

        Raises:
            ConfigError: any number of levels is given.
        """
        if levels:  # encode_batch hands on the 0 that it got from here
            raise ConfigError(f"{self.name} gives text and has no levels; leave them out")
        return 0

    def in_windows(self, seconds: float) -> TextTokenizer:
        """The same recogniser with pieces of at most ``seconds``, and so a fingerprint of its own."""
        other = copy.copy(self)
        other.piece_seconds = seconds
        other.__dict__.pop("fingerprint", None)  # shorter pieces give other words, so other tokens
        return other

    def describe(self) -> dict[str, Any]:
        """As every tokenizer; what depends on frames is None."""
        facts = {key: getattr(self, key) for key in ("name", "scheme", "sample_rate", "hop", "licence", "note")}
        absent = {"frame_rate": None, "bitrate": None, "levels": 0, "codebook_sizes": [], "semantic_levels": []}
        own = {"vocabulary_size": self.vocabulary.size, "causal": False, "fingerprint": self.fingerprint}
        return facts | absent | own

    def decode(self, tokens: TextTokens) -> str:  # type: ignore[override]
        """The text that the ids say; there is no audio in it.

        Raises:
            TokenError: the tokens come from another tokenizer.
        """
        self._check_own(tokens)
        return self.text(tokens.ids)

    def text(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of any ids ``[M]``, such as those that a language model made up.

        Raises:
            TokenError: an id that the vocabulary does not have.
        """
        ids = np.asarray(ids, dtype=np.int64).reshape(-1)
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.vocabulary.size:
            raise TokenError(f"ids {ids.min()}..{ids.max()} leave the vocabulary of {self.vocabulary.size}")
        return self.vocabulary.decode(ids.tolist())

    def _encode(self, samples: np.ndarray, levels: int) -> Transcript:  # type: ignore[override]
        parts = [
            (part.start, self.recogniser.transcribe(samples[part]))
            for part in pieces(samples, self.sample_rate, self.piece_seconds)
        ]
        timed = all(said.times is not None for _, said in parts)
        times = np.concatenate([said.times + start for start, said in parts]) if timed else None
        return Transcript(" ".join(said.text for _, said in parts if said.text), times)

    def _tokens(self, codes: Transcript, num_samples: int) -> TextTokens:  # type: ignore[override]
        return TextTokens(
            ids=np.array(self.vocabulary.encode(codes.text), np.int64),
            text=codes.text,
            vocabulary_size=self.vocabulary.size,
            sample_rate=self.sample_rate,
            num_samples=num_samples,
            tokenizer=self.name,
            fingerprint=self.fingerprint,
            times=codes.times,
        )

    def _check_fit(self, tokens: TextTokens) -> None:  # type: ignore[override]
        if (tokens.vocabulary_size, tokens.sample_rate) != (self.vocabulary.size, self.sample_rate):
            raise TokenError(f"these text tokens contradict {self.name}: {tokens!r}; encode again")

    def _decode(self, codes: np.ndarray, first_level: int) -> np.ndarray:
        raise NotSupportedError(f"{self.name} gives text, which holds no audio; speak it with a text-to-speech system")


def train_bpe(texts: Sequence[str], size: int) -> str:
    """A byte-level BPE of lower-cased ``texts`` with ``size`` ids, 256 of them bytes; the content of ``bpe.json``.

    Any text can be said in it, and comes back but for capitals. Sennrich and others (2016), on bytes.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    pairs = Tokenizer(models.BPE())
    pairs.normalizer = normalizers.Lowercase()
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    pairs.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=[], show_progress=False)
    pairs.train_from_iterator(texts, trainer)
    return pairs.to_str()


def save_text(tokenizer: TextTokenizer, folder: str | Path, card: dict[str, Any] | None = None) -> None:
    """Write a model folder: the vocabulary, and the name of the recogniser.

    Raises:
        OutputError: the folder cannot be written.
    """
    vocabulary = {"kind": "model"}
    if isinstance(tokenizer.vocabulary, BytePairs):
        vocabulary = {"kind": "bpe"}
        write_text_atomic(make_folder(folder) / BPE, tokenizer.vocabulary.facts)
    section = {"recogniser": tokenizer.recogniser.section(), "vocabulary": vocabulary}
    section["piece_seconds"] = tokenizer.piece_seconds
    write_folder(folder, "text", tokenizer, section, {}, card, [section["recogniser"]["kind"], "tokenizers"])


def from_folder(folder: ModelFolder, device: str = "cpu") -> TextTokenizer:
    """The tokenizer of a folder that ``save_text`` wrote.

    Raises:
        CheckpointError: something is missing, damaged, or does not fit.
        ConfigError: the recogniser's package is not installed.
    """
    wanted = dict(part_of(folder.section, "recogniser", folder.path))
    kind = part_of(folder.section, "vocabulary", folder.path).get("kind")
    seconds = folder.section.get("piece_seconds", PIECE_SECONDS)
    if type(seconds) not in (int, float) or not 0 < seconds < math.inf:
        raise CheckpointError(f"{folder.path}: piece_seconds in its config.json is {seconds!r}; give a number above 0")
    told = {"piece_seconds": seconds, **folder.says}
    if "model" in wanted:
        wanted["model"] = located(folder.path, wanted["model"])
    recogniser = load_recogniser(wanted, device)
    if kind == "bpe":
        return TextTokenizer(recogniser, BytePairs(folder.path / BPE), folder.name, **told)
    if kind == "model" and isinstance(recogniser, TransformersRecogniser):
        return TextTokenizer(recogniser, ModelVocabulary(recogniser.processor.tokenizer), folder.name, **told)
    raise CheckpointError(
        f"{folder.path}: vocabulary of kind {kind!r}; give bpe, or model with a transformers recogniser"
    )
