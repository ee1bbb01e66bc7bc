"""Lhotse Shar: cuts without audio whose field ``codes`` holds the codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from speechtok.corpus.exporters import require_codes
from speechtok.corpus.extras import library
from speechtok.corpus.reader import TokenCorpus
from speechtok.errors import ConfigError
from speechtok.files import StrPath, atomic_folder
from speechtok.tokenfile import TokenValue

FIELD = "codes"


def write_shar(corpus: TokenCorpus, folder: StrPath, size: int = 1000) -> list[Path]:
    """Write ``cuts.000000.jsonl.gz`` with ``codes.000000.tar`` and so on; returns all files.

    ``cut.load_codes()`` gives ``[Q, N]``. The array has no time axis in Lhotse's sense: Lhotse rounds where this
    package has N == ceil(T / hop), and would drop the last frame of some recordings. Speaker and text go into the cut's
    supervision; all columns, with the fingerprint and the number of samples, into its custom fields.

    Raises:
        ConfigError: Lhotse is not installed.
        NotSupportedError: the corpus holds no codes.
        OutputError: the folder is not empty or cannot be written.
    """
    require_codes(corpus, "Shar")
    if size < 1:
        raise ConfigError(f"--size is {size}; give at least 1")
    lhotse, shar = library("lhotse", "lhotse"), library("lhotse.shar", "lhotse")
    with atomic_folder(folder) as made, shar.SharWriter(made, {FIELD: "numpy"}, shard_size=size) as writer:
        for name, tokens, columns in corpus.rows():
            writer.write(_cut(lhotse, corpus, name, tokens, columns))
    return sorted(Path(folder).iterdir())


def _cut(lhotse: Any, corpus: TokenCorpus, name: str, tokens: TokenValue, columns: dict[str, Any]) -> Any:
    said = lhotse.SupervisionSegment(
        name, name, 0.0, tokens.seconds, speaker=columns.get("speaker"), text=columns.get("text")
    )
    custom = {**columns, **corpus.plan.header, "num_samples": tokens.num_samples}
    cut = lhotse.MonoCut(name, 0.0, tokens.seconds, 0, supervisions=[said], custom=custom)
    return cut.attach_tensor(FIELD, np.ascontiguousarray(tokens.payload, corpus.plan.payload))
