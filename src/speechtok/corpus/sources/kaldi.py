"""Kaldi's ``wav.scp``: ``id path`` a line. With ``segments`` beside it, the parts that it names; ``utt2spk`` and
``text`` beside it give the columns speaker and text."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from speechtok.corpus.recording import Recording, stamp_of
from speechtok.errors import ConfigError

BESIDE = {"speaker": "utt2spk", "text": "text"}


def accepts(path: Path) -> bool:
    """Files that end in ``.scp``."""
    return path.suffix == ".scp"


def recordings(path: Path, split: str | None) -> Iterator[Recording]:
    """In the order of the lines of ``segments``, else of ``wav.scp``.

    Paths are relative to the working directory, as in Kaldi.

    Raises:
        ConfigError: a split is asked for; a file that cannot be read; a pipe in the place of a path; a segment of an
            unknown recording.
    """
    if split is not None:
        raise ConfigError(f"{path}: a wav.scp has no splits; leave --split out, or name the folder of the split")
    files = {name: _file(place, f"{path}: {name}") for name, place in _pairs(path)}
    beside = {column: dict(_pairs(path.with_name(name))) for column, name in BESIDE.items()
              if path.with_name(name).is_file()}  # fmt: skip
    stamps = {name: stamp_of(file) for name, file in files.items()}

    def columns(name: str) -> dict[str, str | None]:
        return {column: known.get(name) for column, known in beside.items()}

    segments = path.with_name("segments")
    if not segments.is_file():
        for name, file in files.items():
            yield Recording(name, file, columns=columns(name), stamp=stamps[name])
        return
    for name, rest in _pairs(segments):
        recording, start, end = _segment(rest, f"{segments}: {name}")
        if recording not in files:
            raise ConfigError(f"{segments}: {name} is a part of {recording!r}, which {path.name} does not have; add it")
        seconds = None if end < 0 else end - start
        yield Recording(name, files[recording], start, seconds, columns=columns(name), stamp=stamps[recording])


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """First word and the rest of every line; paths may hold spaces."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split at U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a text file of Kaldi") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, *rest = line.strip().split(maxsplit=1)
            if not rest and path.suffix == ".scp":
                raise ConfigError(f"{path} line {number}: names no file; write an id and a path")
            yield name, rest[0] if rest else ""


def _file(place: str, where: str) -> str:
    if place.endswith("|") or place.startswith("|"):
        raise ConfigError(f"{where}: is a pipe, which is not run here; write its output to a file and name that")
    return os.path.abspath(place)


def _segment(text: str, where: str) -> tuple[str, float, float]:
    """Recording, start and end of a segment; an end of -1 is that of the recording."""
    try:
        name, start, end = text.split()[:3]
        numbers = float(start), float(end)
        if numbers[0] < 0 or (numbers[1] >= 0 and numbers[1] <= numbers[0]):
            raise ValueError("the end comes first")
    except ValueError as error:
        raise ConfigError(f"{where}: is no segment ({error}); write recording, start and end in seconds") from error
    return name, *numbers
