"""What trainers of the chain's models share: transcribed speech, prefixes of speakers, tokenizer, text, beginnings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

import speechtok
from speechtok.chain.saved import digest_of, require_tokens
from speechtok.chain.text import TextVocabulary, read_vocabulary
from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokens import Tokens
from speechtok.train.pairs import Pairs, texts_of


@dataclass
class SpokenConfig:
    """Transcribed speech."""

    manifests: list[str] = field(default_factory=list)
    """Tab-separated files with the columns path, split, text and speaker; paths are relative to the manifest."""
    validation: list[str] = field(default_factory=list)
    """Manifests whose ``dev`` rows are held out; empty means the dev rows of ``manifests``."""
    cache: str = "cache"
    """Folder for the decoded audio and the codes."""
    batch: int = 8
    """Utterances per step, over all processes."""
    longest: float = 16.0
    """Seconds; what lasts longer is left out."""
    limit: int = 0
    """Most training utterances, spread evenly over the split; 0 takes all."""
    speeds: list[float] = field(default_factory=lambda: [1.0])
    """As often every training utterance is in an epoch, each time played so much faster: [0.9, 1.0, 1.1] makes three of
    one, of other pitch and length (speed perturbation, Ko et al. 2015). The copies are speakers of their own."""
    validation_files: int = 64
    """How many dev utterances each validation hears, spread evenly over the split."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "batch", "validation_files", section="data.")
        require_whole(self, 0, "limit", section="data.")
        if self.longest <= 0:
            raise ConfigError(f"data.longest is {self.longest}; give seconds above 0")
        if not self.speeds or len({*self.speeds}) < len(self.speeds) or not all(0.5 <= one <= 2 for one in self.speeds):
            raise ConfigError(f"data.speeds is {self.speeds}; give different numbers from 0.5 to 2, such as [0.9, 1.1]")

    def pairing(self, split: str) -> dict[str, Any]:
        """What ``Pairs.build`` is told of it for a split; only training speech is played at other speeds."""
        speeds = self.speeds if split == "train" else [1.0]
        return {"cache": self.cache, "longest": self.longest, "speeds": speeds}


@dataclass
class PrefixConfig:
    """What the model may hear of a speaker before it speaks."""

    seconds: float = 3.0
    """Longest prefix, 0 for none at all; never more than half of an utterance is taken from itself."""
    vary: bool = True
    """Whether lengths are uniform between nothing and that; otherwise they are all that."""
    other: float = 0.5
    """Share of utterances whose prefix comes from another one of their speaker, at any place of it, as in synthesis;
    the others give their own beginning, after which their targets begin (TokenChain)."""

    def __post_init__(self) -> None:
        if self.seconds < 0 or not 0 <= self.other <= 1:
            raise ConfigError("prefix.seconds must be 0 or more, and prefix.other between 0 and 1")


PREFIXES = 3
"""Marks the draws of the prefixes, so that they are those of nothing else."""


def prefix_draws(picks: np.ndarray, *place: int) -> list[np.ndarray]:
    """Four numbers between 0 and 1 for each utterance, as ``Prefixes`` takes them, by the seed and step of a place."""
    return [np.random.default_rng((*place, PREFIXES, int(pick))).random(4) for pick in picks]


class Prefix(NamedTuple):
    """Where an utterance's prefix comes from."""

    source: int
    start: int
    length: int


class Prefixes:
    """Prefixes of a corpus, a pure function of the draws.

    Args:
        lengths: frames of the utterances ``[n]``.
        frames: longest prefix.
    """

    def __init__(self, lengths: np.ndarray, speakers: list[str], frames: int, config: PrefixConfig):
        self.lengths, self.speakers, self.frames, self.config = lengths, speakers, frames, config
        self.of_speaker: dict[str, list[int]] = defaultdict(list)
        for index, speaker in enumerate(speakers):
            self.of_speaker[speaker].append(index)

    @classmethod
    def of(cls, pairs: Pairs, config: PrefixConfig) -> Prefixes:
        """Of a corpus."""
        return cls(pairs.lengths, pairs.speakers, round(config.seconds * pairs.rate), config)

    def __call__(self, pick: int, draws: np.ndarray) -> Prefix:
        """Of one utterance, by four numbers between 0 and 1."""
        wanted = round(self.frames * draws[0]) if self.config.vary else self.frames
        friends = self.of_speaker[self.speakers[pick]] if self.speakers[pick] else [pick]
        if not self.frames or draws[1] >= self.config.other or len(friends) < 2:
            return Prefix(pick, 0, min(wanted, int(self.lengths[pick]) // 2))
        place = int(draws[2] * (len(friends) - 1))
        source = friends[place + (place >= friends.index(pick))]
        length = min(max(1, wanted), int(self.lengths[source]))
        return Prefix(source, int(draws[3] * (self.lengths[source] - length + 1)), length)


def codes_tokenizer(name: str) -> Tokenizer:
    """The tokenizer that a recipe names.

    Raises:
        CheckpointError: it cannot be loaded.
        ConfigError: its tokens are no codes.
    """
    tokenizer = speechtok.load(name)
    if not issubclass(tokenizer.value, Tokens):
        raise ConfigError(f"{name} gives {tokenizer.value.__name__}; the chain needs codes, take another tokenizer")
    return tokenizer


def vocabulary_of(place: str, manifests: Sequence[str], size: int) -> TextVocabulary:
    """The text vocabulary of ``place``; without one, learned from the training texts of ``manifests``.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: there are no texts to learn from.
    """
    return read_vocabulary(place) if place else TextVocabulary.train(texts_of(manifests, "train"), size)


def origin_of(*folders: str) -> str:
    """Digest of the trained models that a run begins with; folders that are empty strings are none.

    Raises:
        CheckpointError: their weights cannot be read.
    """
    return "".join(digest_of(folder) for folder in folders if folder)


def begin_with(
    model: nn.Module,
    trained: nn.Module,
    header: dict[str, Any],
    folder: str | Path,
    tokenizer: Tokenizer,
    vocabulary: TextVocabulary | None = None,
) -> None:
    """Give a model the weights of a trained one, which was read from ``folder`` with its ``header``.

    Raises:
        CheckpointError: it was trained on other codes.
        ConfigError: it has another vocabulary or shape.
    """
    require_tokens(header, tokenizer, folder)
    if vocabulary is not None and header["text"] != vocabulary.digest:
        raise ConfigError(f"{folder}: has another text vocabulary; set vocabulary={folder}")
    try:
        model.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise ConfigError(f"{folder}: has another shape than network; set that to {trained.config}") from error
