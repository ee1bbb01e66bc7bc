"""The vectors that codes stand for, where a tokenizer shows them: a place where tables of codes may begin."""

from __future__ import annotations

import torch
from torch import Tensor

from speechtok.errors import ConfigError
from speechtok.nn.quantizers.base import Quantizer
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import CodecTokenizer
from speechtok.tokenizers.two_stage import TwoStageTokenizer
from speechtok.tokenizers.units import Clusters, UnitTokenizer


@torch.no_grad()
def code_vectors(tokenizer: Tokenizer, levels: int) -> list[Tensor]:
    """The vector of every code, ``[K, D]`` of each of the first ``levels`` levels.

    Raises:
        ConfigError: this kind of tokenizer does not show any.
    """
    if isinstance(tokenizer, UnitTokenizer) and isinstance(tokenizer.source, Clusters):
        return [tokenizer.source.centres]
    if isinstance(tokenizer, TwoStageTokenizer):
        first = code_vectors(tokenizer.units, min(levels, tokenizer.units.levels))
        rest = levels - len(first)
        return first + (code_vectors(tokenizer.codec, rest) if rest else [])
    quantizer = tokenizer.codec.quantizer if isinstance(tokenizer, CodecTokenizer) else None
    if not isinstance(quantizer, Quantizer):
        raise ConfigError(f"{tokenizer.name} shows no code vectors; set start=random (network.start=random of a probe)")
    device = next(tokenizer.codec.parameters()).device
    every = [torch.arange(size, device=device)[None, None] for size in tokenizer.codebook_sizes[:levels]]
    return [quantizer.vectors(codes, level)[0, 0] for level, codes in enumerate(every)]
