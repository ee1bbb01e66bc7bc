"""Audio to text through tokens: a tokenizer, a recogniser of its codes, and a search."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from speechtok.audio import Audio
from speechtok.chain.decoding import SearchConfig, recognise
from speechtok.chain.recogniser import Recogniser, load_recogniser
from speechtok.chain.saved import known_tokenizer, require_tokens
from speechtok.chain.text import TextVocabulary
from speechtok.errors import CheckpointError
from speechtok.tokenizers.base import Tokenizer
from speechtok.tokenizers.codec import torch_device
from speechtok.tokenizers.recognisers import pieces
from speechtok.tokenizers.registry import BUNDLED, load

DEFAULT = BUNDLED / "tokenchain" / "asr"
LONGEST = 20.0
"""Seconds that are heard at once; longer audio is cut where it is quiet."""


class Transcriber:
    """Hears audio of any rate and length.

    Args:
        model: trained on codes of ``tokenizer``.
    """

    def __init__(self, tokenizer: Tokenizer, model: Recogniser, vocabulary: TextVocabulary, search: SearchConfig):
        self.tokenizer, self.model, self.vocabulary, self.search = tokenizer, model, vocabulary, search

    @classmethod
    def load(
        cls,
        folder: str | Path | None = None,
        search: SearchConfig | None = None,
        tokenizer: str | Tokenizer | None = None,
        device: str = "cpu",
    ) -> Transcriber:
        """From a folder of ``train asr``.

        Args:
            folder: None for the bundled recogniser.
            tokenizer: None for the one by whose name the recogniser was trained.

        Raises:
            CheckpointError: there is no such recogniser, it is damaged, or it knows codes of another tokenizer.
            ConfigError: the device cannot be used.
        """
        if folder is None and not DEFAULT.is_dir():
            raise CheckpointError(
                "no recogniser is bundled; train one with 'speechtok train asr recipes/asr-mini.yaml' and name its"
                " folder, runs/asr-mini/model, with --model"
            )
        folder = DEFAULT if folder is None else folder
        model, vocabulary, header = load_recogniser(folder)
        if tokenizer is None or isinstance(tokenizer, str):
            by_name = partial(load, device=device)
            tokenizer = by_name(tokenizer) if tokenizer else known_tokenizer(header, folder, by_name)
        require_tokens(header, tokenizer, folder)
        return cls(tokenizer, model.to(torch_device(device)), vocabulary, search or SearchConfig())

    def transcribe(self, audio: Audio) -> str:
        """What was said, in the plain form; an empty text where nothing was understood."""
        rate, levels = self.tokenizer.sample_rate, len(self.model.config.sizes)
        samples, heard = audio.resample(rate).samples, []
        for piece in pieces(samples, rate, LONGEST):
            codes = self.tokenizer.encode(Audio(samples[piece], rate), levels).codes
            heard.append(self.vocabulary.decode(recognise(self.model, codes, self.search)))
        return " ".join(filter(None, heard))
