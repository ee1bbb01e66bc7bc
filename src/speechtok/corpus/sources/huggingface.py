"""A dataset of the library `datasets` saved on disk (``Dataset.save_to_disk``), with one column of audio.

The sound is taken as it lies in the dataset and read by soundfile; `datasets` decodes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from speechtok.corpus.extras import library
from speechtok.corpus.recording import Recording, stamp_of
from speechtok.errors import ConfigError

STATE, SPLITS = "state.json", "dataset_dict.json"
PLAIN = re.compile(r"(string|large_string|bool|(u?int|float)\d+)")
"""Kinds of columns that are carried over."""


def accepts(path: Path) -> bool:
    """A folder that ``save_to_disk`` left, of one dataset or of several splits."""
    return path.is_dir() and ((path / STATE).is_file() or (path / SPLITS).is_file())


def recordings(path: Path, split: str | None) -> Iterator[Recording]:
    """In the order of the rows; a column ``id`` gives the ids, else the number of the row does.

    Raises:
        ConfigError: `datasets` is not installed, the folder is damaged, there is not one column of audio, or no such
            split.
    """
    folder = (_split_folder(path, split) if (path / SPLITS).is_file() else path).resolve()
    if folder == path.resolve() and split is not None:
        raise ConfigError(f"{path}: is one dataset without splits; leave --split out")
    dataset, _ = opened(str(folder))
    kept = [name for name, kind in dataset.features.items() if name != "id" and _is_plain(kind)]
    has_id, stamp = "id" in dataset.column_names, stamp_of(folder / STATE)
    table = dataset.select_columns([*kept, *(["id"] if has_id else [])]) if kept or has_id else None
    for row in range(len(dataset)):
        values = table[row] if table is not None else {}
        name = str(values.pop("id")) if has_id else f"{row:08d}"
        yield Recording(name, str(folder), row=row, columns=values, stamp=stamp)


@lru_cache(maxsize=2)
def opened(folder: str) -> tuple[Any, str]:
    """A dataset whose audio is left undecoded, and the name of that column; raises ConfigError as ``recordings``."""
    datasets = library("datasets", "layouts")
    try:
        dataset = datasets.load_from_disk(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:  # what the library and Arrow raise for damage
        raise ConfigError(f"{folder}: cannot be read as a dataset ({error}); save it again") from error
    columns = [name for name, kind in dataset.features.items() if isinstance(kind, datasets.Audio)]
    if len(columns) != 1:
        raise ConfigError(f"{folder}: has {len(columns)} columns of audio; cast exactly one to datasets.Audio")
    return dataset.cast_column(columns[0], datasets.Audio(decode=False)), columns[0]


def _is_plain(kind: Any) -> bool:
    return PLAIN.fullmatch(str(getattr(kind, "dtype", ""))) is not None


def _split_folder(path: Path, split: str | None) -> Path:
    try:
        splits = json.loads((path / SPLITS).read_text(encoding="utf-8"))["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: cannot be read as a dataset ({error}); save it again") from error
    if split not in splits:
        raise ConfigError(f"{path}: has the splits {', '.join(splits)}; name one with --split")
    return path / split
