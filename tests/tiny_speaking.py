"""Very small speaking models of the chain with random weights, for the codes of ``tiny_tokenizer``."""

from __future__ import annotations

from pathlib import Path

import torch

from speechtok.chain.s2a import save_s2a
from speechtok.chain.saved import tokens_section
from speechtok.chain.t2s import T2SConfig, TextToSemantic, save_t2s
from speechtok.chain.text import TextVocabulary
from speechtok.nn.conformer import ConformerConfig
from speechtok.nn.soundstorm import SoundStorm, SoundStormConfig
from speechtok.tokenizers.base import Tokenizer

CONFORMER = ConformerConfig(8, 2, 1, 12, 1, 5, 0.0, positions="rotary")
SIZES = (32, 32, 32, 32)
TEXTS = ("the cat sat on the mat", "a dog sat there", "that cat")


def tiny_vocabulary() -> TextVocabulary:
    """Letters and a few pieces."""
    return TextVocabulary.train(TEXTS, 34)


def tiny_t2s(text: int = 34, **changes) -> TextToSemantic:
    """A speaker of two layers."""
    torch.manual_seed(0)
    shape = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 24, "positions": 400, "semantic": 32}
    return TextToSemantic(T2SConfig(text=text, **(shape | changes))).eval()


def tiny_s2a(**changes) -> SoundStorm:
    """A network of one block."""
    torch.manual_seed(0)
    shape = {"codebook_sizes": SIZES, "code_dimension": 6, "conformer": CONFORMER}
    return SoundStorm(SoundStormConfig(**(shape | changes))).eval()


def tiny_speaker(folder: Path, tokenizer: Tokenizer) -> Path:
    """Both of them in a folder."""
    save_t2s(tiny_t2s(), tiny_vocabulary(), folder / "t2s", tokens_section(tokenizer))
    save_s2a(tiny_s2a(), folder / "s2a", tokens_section(tokenizer))
    return folder
