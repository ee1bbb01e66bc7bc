"""Text from speech tokens: an E-Branchformer encoder and a Transformer decoder, trained by CTC and attention together.

Sources: TokenChain (arXiv 2510.06201) for the task; ESPnet's recipes for discrete LibriSpeech tokens for the sizes;
Watanabe et al. 2017 (hybrid CTC/attention) for the loss ``(1 - eta) L_attention + eta L_ctc``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.chain.saved import load_with_text, save_with_text
from speechtok.chain.text import TextVocabulary
from speechtok.config import from_mapping, require_whole
from speechtok.errors import ConfigError
from speechtok.nn.code_input import CodeInput
from speechtok.nn.conformer import silenced
from speechtok.nn.ctc import ctc_nats, possible
from speechtok.nn.ebranchformer import EBranchformer, EBranchformerConfig
from speechtok.nn.text_decoder import TextDecoder, TextDecoderConfig
from speechtok.nn.vectors import unit_scale

KIND = "speechtok.asr"
ATTENTION, CTC = "asr/attention", "asr/ctc"
"""The losses that are minimised."""
STEPS = {1: (1, 1), 2: (1, 2), 4: (2, 2)}
"""Frames from one output to the next of both input layers, by ``RecogniserConfig.subsampling``."""
PAD, EOS = TextVocabulary.pad, TextVocabulary.eos

Mean = Callable[[Tensor], Tensor]
"""Mean of values ``[M]``, of all processes where there are several; 0 where there are none."""


def average(values: Tensor) -> Tensor:
    """A ``Mean`` of one process."""
    return values.sum() / max(1, values.numel())


@dataclass
class RecogniserConfig:
    """Shape and loss of a recogniser; the defaults are the paper's size, see ``recipes/asr-paper.yaml``."""

    symbols: int = 0
    """Of the text vocabulary; a recipe leaves it 0 and has it from the vocabulary."""
    sizes: tuple[int, ...] = (1024,)
    """Codes of each level that is heard; a recipe has them from the tokenizer."""
    table: int = 0
    """Width of the tables of codes; 0 makes it ``embedding``, another width is mapped to that linearly."""
    embedding: int = 512
    """Numbers that stand for a frame of tokens, the sum over its levels."""
    subsampling: Literal[1, 2, 4] = 1
    """Frames of tokens that become one frame of the encoder."""
    time_masks: int = 10
    """Stretches of embedded tokens that are hidden in training; 0 hides none."""
    time_mask_share: float = 0.05
    """Longest stretch, as a share of the utterance."""
    encoder: EBranchformerConfig = field(default_factory=EBranchformerConfig)
    decoder: TextDecoderConfig = field(default_factory=TextDecoderConfig)
    eta: float = 0.3
    """Weight of the CTC loss; the attention loss has the rest."""
    smoothing: float = 0.1
    """Share of the attention loss's targets that is spread over all symbols."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "embedding", section="network.")
        require_whole(self, 0, "symbols", "table", "time_masks", section="network.")
        if not self.sizes:
            raise ConfigError("network.sizes is empty; a recogniser hears at least one level")
        for name in ("eta", "time_mask_share", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"network.{name} is {getattr(self, name)}; give a number from 0 to 1")

    @property
    def weights(self) -> dict[str, float]:
        """Of the losses in their sum."""
        return {ATTENTION: 1 - self.eta, CTC: self.eta}


class Heard(NamedTuple):
    """What the encoder makes of a batch."""

    states: Tensor
    """``[B, M, C]``."""
    lengths: Tensor
    """States of each utterance, ``[B]``, on the CPU."""
    mask: Tensor
    """``[B, M]``, False on padding."""


class Recogniser(nn.Module):
    """Codes ``[B, Q, N]`` to text."""

    def __init__(self, config: RecogniserConfig):
        super().__init__()
        if config.symbols <= EOS + 1:
            raise ConfigError(f"network.symbols={config.symbols} is no text vocabulary; it needs pieces of text")
        self.config = config
        width, table = config.encoder.width, config.table or config.embedding
        starts = [torch.randn(size, table) for size in config.sizes]
        self.source = CodeInput(config.embedding, config.sizes, starts)
        # each sees three frames
        self.first = nn.Linear(3 * config.embedding, width)
        self.second = nn.Linear(3 * width, width)
        self.dropout = nn.Dropout(config.encoder.dropout)
        self.encoder = EBranchformer(config.encoder)
        self.ctc = nn.Linear(width, config.symbols)
        self.decoder = TextDecoder(config.decoder, width, config.symbols)

    @torch.no_grad()
    def begin_with(self, vectors: Sequence[Tensor]) -> None:
        """Let the tables begin at code vectors ``[K, table]`` of each level, scaled as random ones are."""
        for table, one in zip(self.source.tables, vectors, strict=True):
            table.weight.copy_(unit_scale(one))

    def hear(self, codes: Tensor, lengths: Tensor) -> Heard:
        """``codes[B, Q, N]``, of which ``lengths[B]`` frames count; what lies in padding changes nothing."""
        lengths, mask = lengths.cpu(), inside(lengths, codes.shape[2]).to(codes.device)
        x = silenced(self.source(codes.mT), mask)
        if self.training and self.config.time_masks:
            x = silenced(x, ~time_masks(lengths, codes.shape[2], self.config).to(x.device))
        for layer, step in zip((self.first, self.second), STEPS[self.config.subsampling], strict=True):
            x, lengths = layer(threes(x, step)), -(-lengths // step)
            mask = inside(lengths, x.shape[1]).to(x.device)
            x = silenced(F.gelu(x), mask) if layer is self.first else x
        return Heard(self.encoder(self.dropout(x), mask), lengths, mask)

    def ctc_logits(self, heard: Heard) -> Tensor:
        """``[B, M, symbols]``; class 0, which pads texts, is the blank."""
        return self.ctc(heard.states)

    def spell(self, heard: Heard, text: Tensor) -> Tensor:
        """Decoder's rows of ``text[B, L]``, padded, that is told to it symbol by symbol: ``[B, L + 1, symbols]``.

        Row i stands for symbol i and knows those before it; behind the last symbol of a text the end is expected.
        """
        return self.decoder(F.pad(text, (1, 0), value=EOS), heard.states, heard.mask)

    def teacher_forced_logits(self, codes: Tensor, lengths: Tensor, text: Tensor) -> Tensor:
        """One row per symbol of ``text[B, L]``, ``[B, L, symbols]``: what the chain hands on to the speaker."""
        return self.spell(self.hear(codes, lengths), text)[:, :-1]

    def losses(
        self, codes: Tensor, lengths: Tensor, text: Tensor, text_lengths: Tensor, mean: Mean = average
    ) -> dict[str, Tensor]:
        """Both losses and what else is watched, see ``losses_of``.

        Args:
            codes: ``[B, Q, N]``.
            lengths: frames that count, ``[B]``.
            text: ``[B, L]``, padded with 0.
            text_lengths: symbols that count, ``[B]``.
        """
        heard = self.hear(codes, lengths)
        return self.losses_of(heard, self.spell(heard, text), text, text_lengths, mean)

    def losses_of(
        self, heard: Heard, rows: Tensor, text: Tensor, text_lengths: Tensor, mean: Mean = average
    ) -> dict[str, Tensor]:
        """Losses of what was heard and spelled before.

        Returns:
            ``asr/attention``: nats per symbol, the end among them, with label smoothing; ``accuracy/attention``;
            ``asr/ctc``: nats per symbol, mean over the utterances that have as many states as CTC needs;
            ``impossible/ctc``: the share of the others.
        """
        device = rows.device
        wanted = F.pad(text, (0, 1)).scatter(1, text_lengths.to(device)[:, None], EOS)
        counted = inside(text_lengths + 1, wanted.shape[1]).to(device)
        logits = self.ctc_logits(heard)
        with torch.autocast(device.type, enabled=False):
            rows, wanted = rows[counted].float(), wanted[counted]
            attention = F.cross_entropy(rows, wanted, reduction="none", label_smoothing=self.config.smoothing)
            texts = [one[:length].cpu() for one, length in zip(text, text_lengths.tolist(), strict=True)]
            fits = possible(heard.lengths, texts)
            kept = fits.nonzero()[:, 0].tolist()
            ctc = logits[kept].float().sum((1, 2))  # of no utterance: a loss of nothing, which still has a gradient
            if kept:
                said = [texts[i] for i in kept]
                nats = ctc_nats(logits[kept], heard.lengths[kept], said)
                ctc = nats / torch.tensor([*map(len, said)], device=device)
            return {
                ATTENTION: mean(attention),
                CTC: mean(ctc),
                "accuracy/attention": mean((rows.argmax(-1) == wanted).float()),
                "impossible/ctc": mean(1 - fits.float().to(device)),
            }


def inside(lengths: Tensor, longest: int) -> Tensor:
    """``[B, longest]``, True on the first ``lengths[B]`` places; on the CPU."""
    return torch.arange(longest) < lengths.cpu()[:, None]


def threes(x: Tensor, step: int) -> Tensor:
    """Every ``step``-th frame of ``x[B, N, C]`` with both neighbours: ``[B, ceil(N / step), 3 C]``."""
    return F.pad(x, (0, 0, 1, 1)).unfold(1, 3, step).flatten(2)


def time_masks(lengths: Tensor, longest: int, config: RecogniserConfig) -> Tensor:
    """Frames to hide, True in ``[B, longest]``: stretches of any length up to the share, drawn by torch."""
    frames = lengths[:, None].float()
    widths = (torch.rand(len(lengths), config.time_masks) * (frames * config.time_mask_share + 1)).floor()
    starts = (torch.rand(len(lengths), config.time_masks) * (frames - widths + 1).clamp_min(0)).floor()
    places = torch.arange(longest)
    return ((places >= starts[..., None]) & (places < (starts + widths)[..., None])).any(1)


def save_recogniser(
    model: Recogniser, vocabulary: TextVocabulary, folder: str | Path, *about: Any, **more: Any
) -> None:
    """Write a folder that ``load_recogniser`` reads; see ``saved.save_with_text``, also for the other arguments."""
    save_with_text(model, vocabulary, folder, KIND, *about, **more)


def load_recogniser(folder: str | Path) -> tuple[Recogniser, TextVocabulary, dict[str, Any]]:
    """Model in evaluation mode, its text vocabulary and its header; raises as ``saved.load_with_text``."""

    def build(header: dict[str, Any]) -> Recogniser:
        return Recogniser(from_mapping(RecogniserConfig, header["network"], str(folder)))

    return load_with_text(folder, KIND, build, lambda model: model.config.symbols)
