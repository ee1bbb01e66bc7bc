"""The closed chain: speech tokens to rows of text to the same speech tokens, with gradients all the way.

Source: TokenChain (arXiv 2510.06201). The recogniser is told the text symbol by symbol; its rows, made one-hot by a
straight-through estimator, take the place of the text that the speaker reads, and what the speaker cannot say again is
the recogniser's loss, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from speechtok.chain.recogniser import Mean, Recogniser, average
from speechtok.chain.t2s import TextToSemantic, Utterances
from speechtok.errors import ConfigError

CHAIN = "chain/semantic"
"""The loss of the loop: nats per semantic token, the end of an utterance among them."""

Estimator = Callable[[Tensor], Tensor]
"""Logits ``[..., C]`` to one-hot rows with a gradient, see ``chain.interface``."""


class Chain(nn.Module):
    """A recogniser and a speaker of one text vocabulary.

    Args:
        balance: what learns along, where the weights of their losses are learned.

    Raises:
        ConfigError: they know different numbers of symbols or of semantic codes, or the recogniser hears more levels.
    """

    def __init__(self, asr: Recogniser, t2s: TextToSemantic, balance: nn.Module | None = None):
        super().__init__()
        one, other = (asr.config.symbols, *asr.config.sizes), (t2s.config.text, t2s.config.semantic)
        if one != other:
            raise ConfigError(
                f"recogniser and speaker cannot be one chain: {one} and {other} text symbols and semantic codes; train"
                " one with vocabulary= and tokenizer= of the other, the recogniser with levels=1"
            )
        self.asr, self.t2s, self.balance = asr, t2s, balance

    def listen(
        self, codes: Tensor, lengths: Tensor, text: Tensor, text_lengths: Tensor, mean: Mean = average
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The recogniser's losses, and its rows ``[B, L, C]`` of ``text[B, L]``; see ``Recogniser.losses``."""
        heard = self.asr.hear(codes, lengths)
        rows = self.asr.spell(heard, text)
        return self.asr.losses_of(heard, rows, text, text_lengths, mean), rows[:, :-1]

    def repeat(
        self, rows: Tensor, spoken: Utterances, estimator: Estimator, gradient: bool = True, mean: Mean = average
    ) -> dict[str, Tensor]:
        """``chain/semantic``: how badly the speaker says again what was heard; ``accuracy/chain`` of its tokens.

        Args:
            rows: of the recogniser, ``[B, L, C]``.
            spoken: the same utterances; their ``text`` is replaced by the rows.
            gradient: whether the loss reaches the rows.
        """
        with torch.autocast(rows.device.type, enabled=False):
            text = estimator(rows.float())
        found = self.t2s.losses(spoken._replace(text=text if gradient else text.detach()), mean)
        return {CHAIN: found["t2s/semantic"], "accuracy/chain": found["accuracy/top-1"]}
