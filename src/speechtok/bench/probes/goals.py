"""What a probe learns: the losses of a batch, and the errors of an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from speechtok.bench.probes.tokens import Found
from speechtok.errors import ConfigError
from speechtok.guidance.phones import SILENCE, Segment, frame_labels
from speechtok.nn.ctc import ctc_nats, possible
from speechtok.train.devices import Devices
from speechtok.train.phones import decode, distance
from speechtok.train.teaching import UNKNOWN, mean_over_frames
from speechtok.train.transcripts import BLANK, CHARACTERS, PHONES, spoken_characters

NO_ANSWER = {
    "characters": "no transcript",
    "phones": "no alignment",
    "classes": "no label",
}
"""Why an utterance cannot be used."""


class Goal(ABC):
    """One kind of question."""

    name: ClassVar[str]
    loss: ClassVar[str]
    """Name of the loss that is minimised."""
    pooled: bool = False
    """Whether there is one answer for the whole utterance."""
    per_frame: int = 1
    """Answers of every frame."""
    classes: Sequence[str]
    """Names of the outputs, in their order."""

    @abstractmethod
    def target(self, answer: str, frames: int) -> Found:
        """Whole numbers ``[L]`` for the right answer to an utterance of so many frames, or why there are none."""

    @abstractmethod
    def losses(
        self, logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], together: Devices | None = None
    ) -> dict[str, Tensor]:
        """Losses and what else is watched of a batch; arguments as ``Probe.forward`` and ``Batch`` have them."""

    @abstractmethod
    def errors(self, logits: Tensor, target: np.ndarray) -> tuple[int, int]:
        """How much of one answer ``[M, C]`` or ``[C]`` is wrong, and of how much."""


class CharactersGoal(Goal):
    """The transcript by CTC: 26 letters, apostrophe, space (written ``|``) and the blank.

    Args:
        frame_rate: of the tokens.
        least: outputs per second, at least; see ``ProbeShape.outputs_per_second``.
    """

    name, loss = "characters", "probe/ctc"
    classes = (BLANK, *CHARACTERS)

    def __init__(self, frame_rate: float, least: float):
        self.per_frame = max(1, int(np.ceil(least / frame_rate)))

    def target(self, answer: str, frames: int) -> Found:
        """Characters from 1."""
        spoken = spoken_characters(answer)
        return "its transcript has other letters than English ones" if spoken is None else spoken.symbols

    def losses(
        self, logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], together: Devices | None = None
    ) -> dict[str, Tensor]:
        """Nats per character, mean over the utterances whose text fits the frames; the share of the others beside."""
        outputs = lengths * self.per_frame
        fits = possible(outputs, targets)
        kept = fits.nonzero()[:, 0].tolist()
        nats = 0 * logits.mean()[None]
        if kept:
            said = [targets[i] for i in kept]
            characters = torch.tensor([len(one) for one in said], device=logits.device)
            nats = ctc_nats(logits[kept], outputs[kept], said) / characters
        return {self.loss: nats.mean(), "impossible/ctc": 1 - fits.float().mean().to(logits.device)}

    def errors(self, logits: Tensor, target: np.ndarray) -> tuple[int, int]:
        """Edits between the best path and the text, and its characters."""
        return distance(target, best_path(logits)), len(target)


class ClassGoal(Goal):
    """One class for the whole utterance.

    Args:
        classes: their names.
    """

    name, loss, pooled = "classes", "probe/cross_entropy", True

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.numbers = {name: i for i, name in enumerate(self.classes)}

    def target(self, answer: str, frames: int) -> Found:
        """The number of the class."""
        if answer not in self.numbers:
            return f"class {answer!r} is not in the training part"
        return np.array([self.numbers[answer]])

    def losses(
        self, logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], together: Devices | None = None
    ) -> dict[str, Tensor]:
        """Nats, mean over utterances."""
        return {self.loss: F.cross_entropy(logits.float(), torch.cat([*targets]).to(logits.device))}

    def errors(self, logits: Tensor, target: np.ndarray) -> tuple[int, int]:
        """1 where the likeliest class is another."""
        return int(logits.argmax() != int(target[0])), 1


class PhonesGoal(Goal):
    """The phone in the middle of every frame, silence included.

    Args:
        frame_rate: of the tokens.
        segments: by the names that are the answers.
    """

    name, loss = "phones", "probe/cross_entropy"
    classes = (SILENCE, *PHONES)

    def __init__(self, frame_rate: float, segments: Mapping[str, Sequence[Segment]]):
        self.frame_rate, self.segments = frame_rate, segments
        self.numbers = {name: i for i, name in enumerate(self.classes)}

    def target(self, answer: str, frames: int) -> Found:
        """The number of each frame's phone.

        Raises:
            ConfigError: a phone that ``speechtok align`` does not write.
        """
        if answer not in self.segments:
            return NO_ANSWER[self.name]
        labels = frame_labels(self.segments[answer], frames, self.frame_rate)
        try:
            return np.array([self.numbers[label] for label in labels])
        except KeyError as error:
            raise ConfigError(f"phone {error} of {answer} is none that speechtok align writes") from error

    def losses(
        self, logits: Tensor, lengths: Tensor, targets: Sequence[Tensor], together: Devices | None = None
    ) -> dict[str, Tensor]:
        """Nats, mean over all frames."""
        wanted = torch.nn.utils.rnn.pad_sequence([*targets], batch_first=True, padding_value=UNKNOWN)
        wanted, inside = wanted.to(logits.device), (wanted != UNKNOWN).to(logits.device)
        nats = F.cross_entropy(logits[inside].float(), wanted[inside], reduction="none")
        return {self.loss: mean_over_frames(nats, together)}

    def errors(self, logits: Tensor, target: np.ndarray) -> tuple[int, int]:
        """Frames whose likeliest phone is another."""
        return int((logits.argmax(-1).numpy() != target).sum()), len(target)


def best_path(logits: Tensor) -> np.ndarray:
    """Characters from 1 of an answer ``[M, C]``: the likeliest class of each output, runs merged, blanks left out."""
    return decode(logits[None], np.array([len(logits)]))[0]


def spelled(symbols: np.ndarray) -> str:
    """Characters from 1 as text."""
    return "".join(CHARACTERS[symbol - 1] for symbol in symbols).replace("|", " ")
