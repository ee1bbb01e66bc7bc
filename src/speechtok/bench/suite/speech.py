"""Which recordings a benchmark is run on: a split of a manifest, or the clips that come with the package."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from speechtok.bench.facts import Evaluation, Item, choose_counted_items, choose_items, item_of
from speechtok.bench.tasks import BUNDLED, Speech
from speechtok.clips import FOLDER, bundled_clips
from speechtok.errors import ConfigError
from speechtok.train.data import Utterance

LANGUAGE = "en"
"""Of the bundled clips that are used: the judges hear English."""
QUICK_ITEMS, QUICK_PHONE_ITEMS = 3, 40


@dataclass(frozen=True)
class Choice:
    """How recordings are chosen."""

    data: Path | None = None
    split: str = "test"
    utterances: int = 40
    """How many are decoded and judged, spread evenly over the speakers."""
    longest: float = 10.0
    """Longer recordings are left out of these, in seconds."""
    phones: Path | None = None
    phone_utterances: int = 0
    """How many of any length have their codes counted and held against phones; 0 takes the split of the manifest."""

    def in_brief(self) -> Choice:
        """Few of them."""
        few = min(self.utterances, QUICK_ITEMS)
        phones = min(self.phone_utterances or QUICK_PHONE_ITEMS, QUICK_PHONE_ITEMS)
        return Choice(self.data, self.split, few, self.longest, self.phones, phones)


def choose_speech(choice: Choice) -> Speech:
    """The recordings of a choice; the same ones in every run.

    Raises:
        ConfigError: a file that cannot be read, nothing in it is short enough, or phones without a manifest.
    """
    if choice.data is None:
        if choice.phones is not None:
            raise ConfigError(f"{choice.phones}: alignments need the recordings they are of; give --data as well")
        return Speech(None, "", tuple(_clips()[: choice.utterances]))
    evaluation = Evaluation(
        data=str(choice.data),
        split=choice.split,
        utterances=choice.utterances,
        longest=choice.longest,
        phones=choice.phones and str(choice.phones),
        phone_utterances=choice.phone_utterances,
    )
    counted = tuple(choose_counted_items(evaluation))
    return Speech(choice.data, choice.split, tuple(choose_items(evaluation)), counted, choice.phones)


def speech_of(speech: Speech, manifest: Path | None) -> Speech:
    """The same with another manifest for what a task trains on, where it has one of its own."""
    return speech if manifest is None else replace(speech, data=manifest)


def described(choice: Choice) -> dict[str, object]:
    """The choice as a result names it: files without their folders."""
    if choice.data is None:
        return {"data": BUNDLED, "split": LANGUAGE, "utterances": choice.utterances}
    names = {"data": choice.data.name, "phones": choice.phones and choice.phones.name}
    rest = ("split", "utterances", "longest", "phone_utterances")
    return names | {name: getattr(choice, name) for name in rest}


def _clips() -> list[Item]:
    clips = [clip for clip in bundled_clips() if clip.language == LANGUAGE]
    return [item_of(Utterance(clip.path, clip.details[0], clip.text), FOLDER) for clip in clips]
