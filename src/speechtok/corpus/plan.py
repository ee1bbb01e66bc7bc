"""The plan of a corpus: which recordings go into which shard, in which order, tokenized by what.

``plan.json`` holds the tokenizer's header, the settings and the shards with their ids; the recordings of a shard, with
their places and columns, lie in ``recordings/DIGEST.jsonl``, named by their content. A shard's key is a digest of
everything that decides its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from speechtok.corpus.recording import Recording
from speechtok.errors import ConfigError, TokenFileError
from speechtok.files import make_folder
from speechtok.shards.durable import create_durably, write_durably

FORMAT, VERSION = "speechtok.corpus", 1
PLAN, RECORDINGS, SHARDS, CLAIMS = "plan.json", "recordings", "shards", "claims"
SUFFIX = ".parquet"


@dataclass(frozen=True)
class Settings:
    """What else decides the codes, besides the tokenizer and the recordings."""

    levels: int | None = None
    """Keep the first so many levels; None for all."""
    batch: int = 1
    """Recordings of a forward pass. 1 gives the codes of ``encode``; more are padded, and near ties may fall the other
    way."""
    precision: str = "fp32"
    """``fp32`` or ``bf16``; ``auto`` is settled before the plan is made, so that every machine takes the same."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"--batch is {self.batch}; give 1, or how many recordings share a pass")


@dataclass(frozen=True)
class Cut:
    """Where shards end; an existing plan is not changed by other values."""

    size: int = 256
    """Most recordings of a shard."""
    seconds: float | None = None
    """Most seconds of a shard, where the source says how long its recordings are or their headers do."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"--shard-size is {self.size}; give at least 1")
        if self.seconds is not None and not self.seconds > 0:
            raise ConfigError(f"--shard-seconds is {self.seconds}; give more than 0")


@dataclass(frozen=True)
class Shard:
    """One file of tokens to be made."""

    name: str
    recordings: str
    """Digest of the recordings, and name of their file."""
    key: str
    """Digest of everything that decides the bytes."""
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of all shards, but for the audio."""

    value: str
    """Kind of tokens, as their files are called."""
    header: dict[str, Any]
    """Fields that all tokens share: name and fingerprint of the tokenizer, rates, codebooks."""
    payload: str
    """Type of the numbers, such as uint16."""
    settings: Settings
    columns: dict[str, str]
    """Names and types of what is carried over."""
    source: str
    """Digest of all recordings, in order."""
    shards: tuple[Shard, ...]

    @property
    def fingerprint(self) -> str:
        """Of the tokenizer."""
        return self.header["fingerprint"]

    def save(self, folder: Path) -> None:
        """Write ``plan.json``, whole or not at all."""
        write_durably(folder / PLAN, lambda path: path.write_text(self.text(), encoding="utf-8"))

    def save_new(self, folder: Path) -> bool:
        """Write ``plan.json`` unless there is one already; False where another process was faster."""
        return create_durably(folder / PLAN, lambda path: path.write_text(self.text(), encoding="utf-8"))

    def text(self) -> str:
        """The content of ``plan.json``."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """The plan of a folder.

        Raises:
            TokenFileError: there is none, it is damaged, or a newer release wrote it.
        """
        path = folder / PLAN
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT or not isinstance(values["version"], int):
                raise TokenFileError(f"{path}: is no plan of a corpus of tokens; name another folder")
            if values["version"] > VERSION:
                raise TokenFileError(f"{path}: version {values['version']}, this release reads {VERSION}; upgrade it")
            known = {field.name: values[field.name] for field in fields(cls)}
            known["settings"] = Settings(**known["settings"])
            known["shards"] = tuple(Shard(**{**shard, "ids": tuple(shard["ids"])}) for shard in known["shards"])
            return cls(**known)
        except FileNotFoundError:
            raise TokenFileError(f"{folder}: holds no corpus of tokens; make one with `speechtok tokenize`") from None
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise TokenFileError(f"{path}: damaged ({error}); tokenize into a new folder") from error


def shard_of(name: str, recordings: Sequence[Recording], identity: str, folder: Path) -> Shard:
    """A shard of these recordings, which are written into ``folder``.

    Args:
        identity: everything else that decides the bytes, as text.
    """
    lines = "".join(recording.line() + "\n" for recording in recordings)
    digest = hashlib.sha256(lines.encode()).hexdigest()[:24]
    path = make_folder(folder / RECORDINGS) / f"{digest}.jsonl"
    if not path.exists():
        write_durably(path, lambda temporary: temporary.write_text(lines, encoding="utf-8"))
    key = hashlib.sha256(f"{identity}\n{name}\n{digest}".encode()).hexdigest()[:24]
    return Shard(name, digest, key, tuple(recording.id for recording in recordings))


def read_recordings(folder: Path, shard: Shard) -> list[Recording]:
    """The recordings of a shard.

    Raises:
        TokenFileError: their file is missing or damaged.
    """
    path = folder / RECORDINGS / f"{shard.recordings}.jsonl"
    try:
        text = path.read_text(encoding="utf-8")
        if hashlib.sha256(text.encode()).hexdigest()[:24] != shard.recordings:
            raise ValueError("another content than the plan says")
        return [Recording.from_line(line) for line in text.split("\n")[:-1]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TokenFileError(f"{path}: missing or damaged ({error}); tokenize into a new folder") from error
