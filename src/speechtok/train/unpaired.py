"""Speech without text and text without speech in the chain's steps: options beyond TokenChain, which pairs all.

The two half loops are those of the machine speech chain (Tjandra et al. 2017, arXiv 1707.04879).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from speechtok.chain.closed import CHAIN, Chain, Estimator
from speechtok.chain.decoding import attention_greedy
from speechtok.chain.recogniser import Mean
from speechtok.chain.t2s import Utterances
from speechtok.chain.text import TextVocabulary
from speechtok.errors import ConfigError
from speechtok.tokenizers.base import Tokenizer
from speechtok.train.chain_recipe import UnpairedConfig
from speechtok.train.data import pooled
from speechtok.train.pairs import codes_of

SPEECH, TEXT = "unpaired-speech/", "unpaired-text/"
"""Groups of the losses."""
DRAWS = 11
"""Marks the draws of unpaired data, so that they are those of nothing else."""


class Unpaired:
    """What is drawn from in every step, a pure function of the seed and the step.

    Args:
        codes: semantic codes ``[N]`` of the speech without text.
        sentences: numbers ``[L]`` of the text without speech.
    """

    def __init__(self, config: UnpairedConfig, codes: list[np.ndarray], sentences: list[np.ndarray]):
        self.config, self.codes, self.sentences = config, codes, sentences

    @classmethod
    def read(
        cls, config: UnpairedConfig, tokenizer: Tokenizer, vocabulary: TextVocabulary, longest: float, cache: str
    ) -> Unpaired:
        """What the recipe names, or nothing.

        Raises:
            ConfigError: a file cannot be read, holds nothing, or a sentence has symbols that the vocabulary lacks.
        """
        codes: list[np.ndarray] = []
        if config.speech:
            track = codes_of(tokenizer, pooled(config.speech, "train"), 1, cache)
            every = (track[index][:, 0].astype(np.int64) for index in range(len(track.offsets) - 1))
            codes = [one for one in every if len(one) <= longest * tokenizer.frame_rate]
            if not codes:
                raise ConfigError(f"unpaired.speech: nothing lasts {longest:g} s or less; raise data.longest")
        return cls(config, codes, _sentences(config.text, vocabulary) if config.text else [])

    def __bool__(self) -> bool:
        return bool(self.codes or self.sentences)

    @property
    def digest(self) -> str:
        """Of all that is drawn from; empty where that is nothing."""
        digest = hashlib.sha256()
        for rows in (self.codes, self.sentences):
            digest.update(np.array([len(rows), *map(len, rows)], "<i8").tobytes())
            for row in rows:
                digest.update(row.astype("<i8").tobytes())
        return digest.hexdigest() if self else ""

    def weights(self, parts: dict[str, float]) -> dict[str, float]:
        """Of the losses of ``losses``; ``parts`` are the shares of the recogniser's losses."""
        found = {SPEECH + CHAIN: self.config.speech_weight} if self.codes else {}
        if self.sentences:
            found |= {TEXT + name: self.config.text_weight * share for name, share in parts.items()}
        return found

    def losses(
        self, chain: Chain, estimator: Estimator, draws: np.random.Generator, share: slice, mean: Mean
    ) -> dict[str, Tensor]:
        """Of one step.

        Args:
            draws: the same in all processes.
            share: this process's rows of the unpaired batch.
        """
        found = self._spoken(chain, estimator, draws, share, mean) if self.codes else {}
        return found | (self._written(chain, draws, share, mean) if self.sentences else {})

    def _spoken(
        self, chain: Chain, estimator: Estimator, draws: np.random.Generator, share: slice, mean: Mean
    ) -> dict[str, Tensor]:
        """Speech that has to be said again from what the recogniser wrote."""
        device = next(chain.parameters()).device
        picks = draws.integers(len(self.codes), size=self.config.batch)[share]
        spoken = [torch.from_numpy(self.codes[pick]) for pick in picks]
        lengths = torch.tensor([*map(len, spoken)])
        codes = pad_sequence(spoken, batch_first=True)[:, None].to(device)
        with evaluated(chain), torch.no_grad():
            written = attention_greedy(chain.asr, chain.asr.hear(codes, lengths))
        text = [np.array(one or [TextVocabulary.eos], np.int64) for one in written]  # of silence: nothing but the end
        nothing = [np.zeros(0, np.int64)] * len(text)
        batch = Utterances.of(text, nothing, [self.codes[pick] for pick in picks], [False] * len(text)).to(device)
        rows = chain.asr.spell(chain.asr.hear(codes, lengths), batch.text)[:, :-1]
        return {SPEECH + name: loss for name, loss in chain.repeat(rows, batch, estimator, mean=mean).items()}

    def _written(self, chain: Chain, draws: np.random.Generator, share: slice, mean: Mean) -> dict[str, Tensor]:
        """Text that has to be heard in what the speaker says, in whatever voice."""
        device = next(chain.parameters()).device
        picks = draws.integers(len(self.sentences), size=self.config.batch)[share]
        text = [self.sentences[pick] for pick in picks]
        nothing = [np.zeros(0, np.int64)] * len(text)
        with evaluated(chain):
            said = chain.t2s.generate(text, nothing, foreign=False, seed=int(draws.integers(2**31)))
        codes = pad_sequence([torch.from_numpy(one) for one in said], batch_first=True)[:, None].to(device)
        written = pad_sequence([torch.from_numpy(one) for one in text], batch_first=True).to(device)
        sizes = [torch.tensor([*map(len, rows)]) for rows in (said, text)]
        losses = chain.asr.losses(codes, sizes[0], written, sizes[1], mean)
        return {TEXT + name: loss for name, loss in losses.items()}


@contextmanager
def evaluated(network: nn.Module) -> Iterator[None]:
    """Without dropout and hidden frames meanwhile."""
    network.eval()
    try:
        yield
    finally:
        network.train()


def _sentences(path: str, vocabulary: TextVocabulary) -> list[np.ndarray]:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"unpaired.text: {path} cannot be read ({error}); give one sentence per line") from error
    found = [np.array(vocabulary.encode(line), np.int64) for line in lines if line.strip()]
    if not found:
        raise ConfigError(f"unpaired.text: {path} has no sentence; give one per line")
    return found
