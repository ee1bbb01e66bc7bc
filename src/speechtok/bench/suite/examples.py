"""A few recordings to hear: as they are, and as every tokenizer gives them back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from speechtok.audio import Audio, read, write
from speechtok.bench.facts import Item
from speechtok.bench.reconstruction import level_choices
from speechtok.bench.suite.tools import silent_levels
from speechtok.bench.tasks import Speech, level_role
from speechtok.errors import AudioError
from speechtok.files import make_folder
from speechtok.text_tokens import TextTokens
from speechtok.tokenizers.base import Tokenizer

COUNT, SECONDS = 2, 6.0
"""How many recordings, and how much of each."""


def write_originals(speech: Speech, folder: Path) -> list[dict[str, Any]]:
    """FLAC files of the first recordings that can be read; plain JSON about each: ``utterance``, ``text``, ``file``."""
    found = []
    for item in speech.items:
        if len(found) == COUNT:
            break
        try:
            audio = _start(item)
        except AudioError:
            continue
        about = {"utterance": item.name, "speaker": item.utterance.speaker, "text": item.utterance.text}
        found.append(about | {"file": _written(audio, make_folder(folder) / f"{_slug(item.name)}.flac")})
    return found


def write_examples(tokenizer: Tokenizer, speech: Speech, folder: Path) -> list[dict[str, Any]]:
    """The same from the first and from all levels, or what a text tokenizer heard; files that are there are kept.

    Returns:
        plain JSON: ``tokenizer``, ``utterance``, ``role``, and ``file`` or ``text``. Nothing where there is no sound.
    """
    roles = _roles(tokenizer)
    found = []
    for original in write_originals(speech, folder):
        item = next(item for item in speech.items if item.name == original["utterance"])
        head = {"tokenizer": tokenizer.name, "utterance": item.name}
        if tokenizer.value is TextTokens:
            found.append(head | {"role": "text", "text": tokenizer.encode(_start(item)).text})
            continue
        for count, role in roles.items():
            path = folder / f"{_slug(item.name)}.{tokenizer.fingerprint}.{count}.flac"
            if not path.exists():
                tokens = tokenizer.encode(_start(item))
                _written(tokenizer.decode(tokens.take(count) if count else tokens), path)
            found.append(head | {"role": role, "file": path.name})
    return found


def _roles(tokenizer: Tokenizer) -> dict[int, str]:
    """Numbers of levels to hear, and what they are called."""
    if tokenizer.value is TextTokens:
        return {}
    counts = level_choices((1,), tokenizer)
    refused = silent_levels(tokenizer, counts)
    return {count: level_role(count, tokenizer.levels) for count in counts if count not in refused}


def _start(item: Item) -> Audio:
    audio = read(item.utterance.path)
    return Audio(audio.samples[: round(SECONDS * audio.rate)], audio.rate)


def _written(audio: Audio, path: Path) -> str:
    if not path.exists():
        write(path, audio)
    return path.name


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
