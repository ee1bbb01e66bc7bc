"""Layouts: between tokens, ``codes[Q, N]``, and the sequences that language models read. Needs numpy alone."""

from speechtok.layouts.base import LAYOUTS, Layout, get, register
from speechtok.layouts.blocks import Coarse, Flat, Split
from speechtok.layouts.bpe import Bpe, train_bpe
from speechtok.layouts.merges import Merges
from speechtok.layouts.runs import Dedup, run_lengths
from speechtok.layouts.streams import Delay, Parallel
from speechtok.layouts.vocabulary import Vocabulary

__all__ = [
    "LAYOUTS", "Bpe", "Coarse", "Dedup", "Delay", "Flat", "Layout", "Merges", "Parallel", "Split", "Vocabulary", "get",
    "register", "run_lengths", "train_bpe",
]  # fmt: skip
