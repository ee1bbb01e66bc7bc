"""Where recordings come from. A kind of source is a module with two functions:

``accepts(path) -> bool`` says whether a place is of its kind, ``recordings(path, split) -> Iterable[Recording]`` gives
what is there, always in the same order; ``split`` is None for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Protocol

from speechtok.corpus.recording import Recording, require_distinct
from speechtok.errors import ConfigError

KINDS = ("huggingface", "folder", "lhotse", "kaldi", "manifest")
"""Asked in this order."""


class Source(Protocol):
    """What every module here is."""

    def accepts(self, path: Path) -> bool:
        """Whether ``path`` is of this kind."""

    def recordings(self, path: Path, split: str | None) -> Iterable[Recording]:
        """The recordings of a split, in an order that is always the same."""


def read_source(path: str | Path, split: str | None = None) -> list[Recording]:
    """All recordings of a folder, a manifest, a wav.scp, a Lhotse CutSet or a saved Hugging Face dataset.

    Raises:
        ConfigError: no such place, of no known kind, without recordings, or with two of one id.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; name the recordings to be tokenized")
    for kind in KINDS:
        source: Source = import_module(f"{__name__}.{kind}")
        if source.accepts(path):
            return require_distinct(source.recordings(path, split), str(path))
    raise ConfigError(
        f"{path}: is no known kind of source; give a folder, a .tsv or .jsonl manifest, a wav.scp, a Lhotse CutSet or a"
        " dataset saved on disk"
    )
