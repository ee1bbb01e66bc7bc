"""From a config to one codebook. A new kind of codebook is a class here and a name in ``config.CODEBOOKS``."""

from __future__ import annotations

from speechtok.nn.quantizers.bsq import BSQ
from speechtok.nn.quantizers.codebook import Codebook
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.ema import VectorQuantizer
from speechtok.nn.quantizers.factorised import FactorisedCodebook
from speechtok.nn.quantizers.frozen import FrozenCodebook
from speechtok.nn.quantizers.fsq import FSQ
from speechtok.nn.quantizers.gumbel import GumbelCodebook
from speechtok.nn.quantizers.learned import LearnedCodebook
from speechtok.nn.quantizers.lfq import LFQ
from speechtok.nn.quantizers.simvq import SimVQ

CLASSES = {
    "ema": VectorQuantizer,
    "gradient": LearnedCodebook,
    "simvq": SimVQ,
    "factorised": FactorisedCodebook,
    "gumbel": GumbelCodebook,
    "fsq": FSQ,
    "lfq": LFQ,
    "bsq": BSQ,
    "kmeans": FrozenCodebook,
}


def make_codebook(dimension: int, codebook_size: int, config: QuantizerConfig) -> Codebook:
    """One codebook of the kind ``config.level``."""
    return CLASSES[config.level](dimension, codebook_size, config)
