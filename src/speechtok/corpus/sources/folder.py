"""A folder of audio files, with all below it. The id of a file is its path in the folder without the suffix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from speechtok.corpus.recording import Recording, stamp_of
from speechtok.errors import ConfigError

SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".sph", ".caf", ".w64", ".rf64",
)  # fmt: skip
"""What libsndfile reads; other files of the folder are no recordings."""


def accepts(path: Path) -> bool:
    """Any folder."""
    return path.is_dir()


def recordings(path: Path, split: str | None) -> Iterator[Recording]:
    """Sorted by id; hidden files and folders are passed over.

    Raises:
        ConfigError: a split is asked for, which folders do not have.
    """
    if split is not None:
        raise ConfigError(f"{path}: a folder has no splits; leave --split out, or name the folder of the split")
    root = path.resolve()
    found = [Path(place) / name for place, folders, names in _walk(root) for name in names if _is_audio(name)]
    for file in sorted(found, key=lambda file: file.relative_to(root).as_posix()):
        yield Recording(file.relative_to(root).with_suffix("").as_posix(), str(file), stamp=stamp_of(file))


def _walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for place, folders, names in os.walk(root, followlinks=False):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        yield place, folders, names


def _is_audio(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)
