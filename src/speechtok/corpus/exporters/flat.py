"""One memory-mapped array of ids with offsets, as trainers of language models read it; see ``layouts.arrays``."""

from __future__ import annotations

from speechtok import layouts
from speechtok.corpus.exporters import require_codes
from speechtok.corpus.reader import TokenCorpus
from speechtok.errors import ConfigError
from speechtok.files import StrPath
from speechtok.layouts.arrays import TokenArrays, write_arrays


def write_flat(corpus: TokenCorpus, path: StrPath, layout: str = "flat", durations: int = 64) -> TokenArrays:
    """Write ``NAME.bin`` or ``NAME.npy`` and its index, in the corpus's order, each utterance within bos and eos.

    Args:
        layout: a name of ``layouts.LAYOUTS``; ``flat`` is frame-major, all levels of a frame before the next frame.
        durations: the longest that the layout ``dedup`` can say.

    Raises:
        NotSupportedError: the corpus holds no codes.
        ConfigError: no utterance, or no such layout.
        OutputError: another suffix, or a place that cannot be written.
    """
    require_codes(corpus, "a layout")
    first = next(corpus.values(), None)
    if first is None:
        raise ConfigError(f"{corpus.folder}: holds no tokens; look into its failures.jsonl")
    vocabulary = layouts.Vocabulary.of(first, durations=durations if layout == "dedup" else 0)
    return write_arrays(path, layouts.get(layout, vocabulary), corpus.items())
