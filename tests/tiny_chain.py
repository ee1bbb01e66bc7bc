"""A very small recogniser with random weights."""

from __future__ import annotations

import torch

from speechtok.chain.recogniser import Recogniser, RecogniserConfig
from speechtok.nn.ebranchformer import EBranchformerConfig
from speechtok.nn.text_decoder import TextDecoderConfig

ENCODER = {"width": 8, "heads": 2, "blocks": 1, "feed_forward": 16, "gated": 16, "kernel": 5, "merge_kernel": 3}
DECODER = {"heads": 2, "blocks": 2, "feed_forward": 16}


def tiny_recogniser(symbols: int = 9, seed: int = 0, dropout: float = 0.0, **settings) -> Recogniser:
    """Of twelve codes; its outputs are far from even, so that one text is clearly the best."""
    torch.manual_seed(seed)
    config = RecogniserConfig(
        **{"symbols": symbols, "sizes": (12,), "embedding": 8, "time_masks": 0} | settings,
        encoder=EBranchformerConfig(**ENCODER, dropout=dropout, attention_dropout=dropout),
        decoder=TextDecoderConfig(**DECODER, dropout=dropout),
    )
    model = Recogniser(config).eval()
    with torch.no_grad():
        for layer in (model.ctc, model.decoder.out):
            layer.weight.mul_(4)
    return model
