"""One recording of a corpus: its id, where its sound is, and what is carried along."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechtok.errors import ConfigError

Stamp = tuple[int, int] | None


@dataclass(frozen=True)
class Recording:
    """What a source names; the sound itself is read when its turn comes."""

    id: str
    """Of its own within the corpus, and the same in every run."""
    path: str
    """Absolute; a file of audio, or a saved dataset whose ``row`` holds it."""
    start: float | None = None
    """First second of the part that is meant; None for the whole file."""
    seconds: float | None = None
    """Length of that part; None up to the end."""
    row: int | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    """Such as speaker and text: texts, numbers, truths or None."""
    length: float | None = None
    """Seconds that the source says it lasts; decides nothing but where shards end."""
    stamp: Stamp = None
    """Size and time of change of the file, by which a change is noticed; None where it cannot be read."""

    @property
    def place(self) -> str:
        """For messages: the file, and which part of it."""
        if self.row is not None:
            return f"{self.path} row {self.row}"
        return self.path if self.start is None else f"{self.path} from {self.start:g} s"

    def line(self) -> str:
        """One line of JSON that holds all of it."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    @classmethod
    def from_line(cls, line: str) -> Recording:
        """The recording that ``line`` wrote."""
        values = json.loads(line)
        stamp = values.pop("stamp")
        return cls(**values, stamp=None if stamp is None else tuple(stamp))


def stamp_of(path: str | Path) -> Stamp:
    """Size and time of the last change in nanoseconds; None where there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def require_distinct(recordings: Iterable[Recording], where: str) -> list[Recording]:
    """The recordings as a list.

    Raises:
        ConfigError: there is none, an id is empty, two have the same (names both), or one is no valid UTF-8.
    """
    seen: dict[str, Recording] = {}
    for recording in recordings:
        if not recording.id:
            raise ConfigError(f"{where}: {recording.place} has an empty id; give it one")
        _require_text(recording, where)
        if recording.id in seen:
            raise ConfigError(
                f"{where}: {seen[recording.id].place} and {recording.place} both have the id {recording.id!r};"
                " give each its own"
            )
        seen[recording.id] = recording
    if not seen:
        raise ConfigError(f"{where}: holds no recording; check the place, and --split if it was given")
    return list(seen.values())


def _require_text(recording: Recording, where: str) -> None:
    try:
        recording.line().encode()
    except UnicodeEncodeError:  # a file name of another encoding, or half a surrogate pair in JSON
        raise ConfigError(
            f"{where}: {recording.place!a} or its columns are no valid UTF-8, which shards cannot hold; rename it"
        ) from None
