"""A Lhotse CutSet in JSON lines (``cuts.jsonl``, ``cuts.jsonl.gz``), of cuts of whole files or parts of them."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtok.corpus.extras import library
from speechtok.corpus.recording import Recording, stamp_of
from speechtok.errors import ConfigError

PLAIN = "MonoCut"


def accepts(path: Path) -> bool:
    """Gzipped JSON lines, and JSON lines whose first one says that it is a cut."""
    name = path.name.lower()
    if name.endswith(".jsonl.gz"):
        return True
    if not name.endswith(".jsonl"):
        return False
    try:
        with path.open(encoding="utf-8") as file:
            return str(json.loads(file.readline()).get("type", "")).endswith("Cut")
    except (OSError, ValueError, AttributeError):
        return False


def recordings(path: Path, split: str | None) -> Iterator[Recording]:
    """In the order of the set. Speaker, text and language of a cut's only supervision are carried over.

    Raises:
        ConfigError: Lhotse is not installed, the file is damaged, a split is asked for, or a cut is more than a part of
            a file: mixed, padded, augmented, or of several channels.
    """
    if split is not None:
        raise ConfigError(f"{path}: a CutSet has no splits; leave --split out, or name the set of the split")
    lhotse = library("lhotse", "lhotse")
    try:
        for cut in lhotse.CutSet.from_jsonl_lazy(path):
            yield _recording(cut, path)
    except (OSError, ValueError, KeyError, TypeError, AssertionError, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}: cannot be read as a CutSet ({error}); export the cuts again") from error


def _recording(cut: Any, path: Path) -> Recording:
    if type(cut).__name__ != PLAIN or not cut.has_recording:
        raise ConfigError(f"{path}: {cut.id} is a {type(cut).__name__}, not a part of one file; save its audio first")
    recording = cut.recording
    file = len(recording.sources) == 1 and recording.sources[0].type == "file"
    if not file or recording.transforms or recording.num_channels != 1:
        raise ConfigError(f"{path}: {cut.id} is no plain part of a mono file; save its audio first (cut.save_audio)")
    place = os.path.abspath(recording.sources[0].source)
    whole = cut.start == 0 and cut.duration == recording.duration
    said = cut.supervisions[0] if len(cut.supervisions) == 1 else None
    return Recording(
        cut.id,
        place,
        start=None if whole else float(cut.start),
        seconds=None if whole else float(cut.duration),
        columns={name: getattr(said, name, None) for name in ("speaker", "text", "language")},
        length=float(cut.duration),
        stamp=stamp_of(place),
    )
