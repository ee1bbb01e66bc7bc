"""Datasets of the library `datasets`; it also reads the shards themselves, as ``load_dataset("parquet", ...)``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from speechtok.corpus.extras import library
from speechtok.corpus.reader import TokenCorpus
from speechtok.files import StrPath, atomic_folder


def to_datasets(corpus: TokenCorpus, cache: StrPath | None = None) -> Any:
    """A ``datasets.Dataset`` with the columns of the shards.

    Args:
        cache: where the library keeps its Arrow copy; None for its usual place.

    Raises:
        ConfigError: `datasets` is not installed.
    """
    datasets = library("datasets", "layouts")
    files = [str(path) for path in corpus.shards]
    return datasets.Dataset.from_parquet(files, cache_dir=None if cache is None else str(cache))


def write_datasets(corpus: TokenCorpus, folder: StrPath) -> list[Path]:
    """Write a folder that ``datasets.load_from_disk`` reads; returns its files.

    Raises:
        ConfigError: `datasets` is not installed.
        OutputError: the folder is not empty or cannot be written.
    """
    with atomic_folder(folder) as made, tempfile.TemporaryDirectory(dir=made.parent) as cache:
        to_datasets(corpus, cache).save_to_disk(str(made))
    return sorted(Path(folder).iterdir())
