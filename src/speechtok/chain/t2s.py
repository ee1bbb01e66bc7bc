"""Text to semantic tokens: a causal language model on one vocabulary of text, semantic codes and marks.

TokenChain's speaker (arXiv 2510.06201) is a Llama-like model that continues ``[text ; prefix]`` by semantic tokens; the
prefix lets it hear who speaks, and only the targets after it are learned. Sequences here:

    text  SAY  prefix  targets  END            the prefix begins the text's own utterance, or is empty
    text  SAY  prefix  TURN  targets  END      the prefix comes from another utterance, whose text is not given

The network is ``transformers``' Llama (RoPE, RMSNorm, SwiGLU), so that caches, sampling and serving are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from speechtok.chain.saved import load_with_text, save_with_text
from speechtok.chain.text import TextVocabulary
from speechtok.config import from_mapping, require_whole
from speechtok.errors import CheckpointError, ConfigError

KIND = "speechtok.t2s"
SHORTEST = 50
"""Frames that generation may always make, however short the text is."""


@dataclass
class T2SConfig:
    """Shape of the network; the paper's sizes stand in ``recipes/t2s-paper.yaml``."""

    text: int = 0
    """Symbols of the text vocabulary; a recipe leaves it 0 and has it from the vocabulary."""
    semantic: int = 1024
    """Semantic codes."""
    width: int = 256
    layers: int = 6
    heads: int = 4
    feed_forward: int = 688
    positions: int = 2048
    """Longest sequence, text and marks included."""
    dropout: float = 0.0
    """Of the vectors that enter the network."""
    forget: float = 0.0
    """Share of the codes said so far that the network does not see in training. What follows is then told by the text
    rather than by what came last, without which a few hours of speech do not teach it to read (word dropout, Bowman
    et al. 2016, arXiv 1511.06349)."""

    def __post_init__(self) -> None:
        require_whole(self, 0, "text", section="network.")
        require_whole(self, 1, "width", "layers", "heads", "feed_forward", "positions", section="network.")
        require_whole(self, 2, "semantic", section="network.")
        if self.width % (2 * self.heads):
            raise ConfigError(f"network.width={self.width} must be a multiple of twice network.heads={self.heads}")
        for name in ("dropout", "forget"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"network.{name} is {getattr(self, name)}; give 0 or more, below 1")


@dataclass
class Sampling:
    """How semantic codes are drawn."""

    top_k: int = 50
    """Likeliest codes that are drawn from; 0: all."""
    temperature: float = 0.8
    """0 takes the likeliest code."""
    ratio: float = 20.0
    """Most frames per symbol of the text, about twice what people need for a piece of a word: where no end is found,
    generation stops there. A text is refused where not even half of that has room."""

    def __post_init__(self) -> None:
        require_whole(self, 0, "top_k", section="sampling.")
        if not (0 <= self.temperature < float("inf") and 0 < self.ratio < float("inf")):
            raise ConfigError("sampling.temperature must be 0 or more, sampling.ratio above 0")

    def most(self, symbols: int) -> int:
        """Frames that a text of so many symbols may become."""
        return max(SHORTEST, round(self.ratio * symbols))


class Utterances(NamedTuple):
    """Texts with their semantic codes, side by side; what lies beyond the lengths does not matter."""

    text: Tensor
    """Numbers ``[B, L]``, or rows ``[B, L, C]`` that weigh all symbols, one-hot or soft."""
    text_lengths: Tensor
    """``[B]``"""
    prefix: Tensor
    """Semantic codes that are given, ``[B, P]``."""
    prefix_lengths: Tensor
    """``[B]``, 0 where there is none."""
    semantic: Tensor
    """Semantic codes that are learned, ``[B, N]``."""
    lengths: Tensor
    """``[B]``"""
    foreign: Tensor
    """``[B]``, True where the prefix is of another utterance than the text."""

    @classmethod
    def of(
        cls,
        text: Sequence[np.ndarray],
        prefix: Sequence[np.ndarray],
        semantic: Sequence[np.ndarray],
        foreign: Sequence[bool],
    ) -> Utterances:
        """Of arrays ``[L]``, ``[P]`` and ``[N]``, one of each per utterance."""
        parts: list[Tensor] = []
        for rows in (text, prefix, semantic):
            tensors = [torch.as_tensor(np.asarray(row, np.int64)) for row in rows]
            parts += [pad_sequence(tensors, batch_first=True), torch.tensor([len(row) for row in tensors])]
        return cls(*parts, torch.tensor(list(map(bool, foreign))))

    def to(self, device: torch.device) -> Utterances:
        """The same on a device."""
        return Utterances(*(part.to(device) for part in self))


class Scores(NamedTuple):
    """Of every target, utterance by utterance, ``[M]`` each."""

    loss: Tensor
    """Cross-entropy in nats."""
    top1: Tensor
    """1 where the target was the likeliest symbol."""
    top10: Tensor
    """1 where it was among the ten likeliest."""


class TextToSemantic(nn.Module):
    """The language model.

    Raises:
        ConfigError: the configuration has no text vocabulary.
        CheckpointError: transformers is not installed.
    """

    def __init__(self, config: T2SConfig):
        super().__init__()
        if config.text < 1:
            raise ConfigError("network.text is 0; give the size of the text vocabulary")
        try:
            from transformers import LlamaConfig, LlamaForCausalLM
        except ImportError as error:
            raise CheckpointError("this network needs transformers; pip install 'speechtok[transformers]'") from error
        self.config = config
        self.first = config.text
        """Number of the first semantic code."""
        self.say, self.turn, self.end = range(config.text + config.semantic, config.text + config.semantic + 3)
        self.dropout = nn.Dropout(config.dropout)
        self.network = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=self.end + 1,
                hidden_size=config.width,
                intermediate_size=config.feed_forward,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.positions,
                tie_word_embeddings=False,
                bos_token_id=None,
                eos_token_id=self.end,
                pad_token_id=None,
                attn_implementation="sdpa",
            )
        )

    # -- training ---------------------------------------------------------------------------------------------------

    def losses(self, batch: Utterances, mean: Callable[[Tensor], Tensor] = torch.mean) -> dict[str, Tensor]:
        """``t2s/semantic``, the cross-entropy of the targets (the end is one), and ``accuracy/top-1``, ``top-10``.

        Args:
            mean: over the targets ``[M]`` of the batch.
        """
        scores = self.score(batch)
        return {
            "t2s/semantic": mean(scores.loss),
            "accuracy/top-1": mean(scores.top1),
            "accuracy/top-10": mean(scores.top10),
        }

    def score(self, batch: Utterances) -> Scores:
        """Every target's cross-entropy and hits; gradients reach soft rows of text.

        Raises:
            ConfigError: a sequence is longer than ``positions``, or rows have another width than the vocabulary.
        """
        ids, wanted = self.layout(batch)
        vectors = self._forgotten(self.vectors(ids, batch), wanted)[:, :-1]
        # padding comes last, where no target looks in a causal model, so there is nothing to mask
        states = self.network.model(inputs_embeds=self.dropout(vectors), use_cache=False).last_hidden_state
        targets = ids[:, 1:][wanted[:, 1:]]
        logits = self.network.lm_head(states[wanted[:, 1:]]).float()
        best = logits.detach().topk(min(10, logits.shape[-1])).indices == targets[:, None]
        return Scores(F.cross_entropy(logits, targets, reduction="none"), best[:, 0].float(), best.any(1).float())

    def layout(self, batch: Utterances) -> tuple[Tensor, Tensor]:
        """Sequences ``[B, S]`` and where they are targets, ``[B, S]``; in place of soft rows stand zeros.

        Raises:
            ConfigError: a sequence is longer than ``positions``.
        """
        text = batch.text if batch.text.ndim == 2 else batch.text.new_zeros(batch.text.shape[:2], dtype=torch.long)
        sequences, targets = [], []
        for row in range(len(text)):
            given = self._given(
                text[row, : batch.text_lengths[row]],
                batch.prefix[row, : batch.prefix_lengths[row]],
                bool(batch.foreign[row]),
            )
            learned = F.pad(batch.semantic[row, : batch.lengths[row]] + self.first, (0, 1), value=self.end)
            sequences.append(torch.cat([given, learned]))
            targets.append(torch.arange(len(sequences[-1]), device=given.device) >= len(given))
        ids = pad_sequence(sequences, batch_first=True, padding_value=self.end)
        self._require_room(ids.shape[1])
        return ids, pad_sequence(targets, batch_first=True)

    def vectors(self, ids: Tensor, batch: Utterances) -> Tensor:
        """Vectors ``[B, S, width]`` of sequences; those of soft rows are the rows' mixtures of the text's vectors."""
        table = self.network.model.embed_tokens
        found = table(ids)
        if batch.text.ndim == 2:
            return found
        if batch.text.shape[2] != self.config.text:
            raise ConfigError(
                f"rows of text weigh {batch.text.shape[2]} symbols, this speaker knows {self.config.text}; give"
                " recogniser and speaker one vocabulary"
            )
        with torch.autocast(found.device.type, enabled=False):  # so that one-hot rows give exactly the symbols' vectors
            mixed = batch.text.float() @ table.weight[: self.config.text]
        mixed = F.pad(mixed, (0, 0, 0, max(0, ids.shape[1] - mixed.shape[1])))[:, : ids.shape[1]]
        spoken = torch.arange(ids.shape[1], device=ids.device) < batch.text_lengths[:, None]
        return torch.where(spoken[..., None], mixed, found)

    def _forgotten(self, vectors: Tensor, said: Tensor) -> Tensor:
        """``vectors[B, S, width]``, in training some of those ``said[B, S]`` as zeros."""
        if not (self.training and self.config.forget):
            return vectors
        lost = said & (torch.rand(said.shape, device=said.device) < self.config.forget)
        return vectors.masked_fill(lost[..., None], 0.0)

    def _given(self, text: Tensor, prefix: Tensor, foreign: bool) -> Tensor:
        """The part of a sequence that is not learned, of ``text[L]`` and ``prefix[P]``."""
        mark = text.new_tensor
        turn = [mark([self.turn])] if foreign else []
        return torch.cat([text, mark([self.say]), prefix + self.first, *turn])

    def _require_room(self, symbols: int) -> None:
        if symbols > self.config.positions:
            raise ConfigError(
                f"text and speech together have {symbols} symbols, this speaker has room for {self.config.positions};"
                " give shorter ones"
            )

    # -- speaking ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def generate(
        self,
        text: Sequence[np.ndarray],
        prefix: Sequence[np.ndarray],
        foreign: bool = True,
        sampling: Sampling | None = None,
        seed: int = 0,
    ) -> list[np.ndarray]:
        """Semantic codes ``[N]`` of every text, spoken on from its prefix, which is not repeated.

        Args:
            text: numbers ``[L]`` of each.
            prefix: semantic codes ``[P]`` of each; empty arrays leave the voice open.
            foreign: whether the prefixes say something else than the texts.
            seed: of all draws.

        Raises:
            ConfigError: text and prefix leave no room to speak.
        """
        from transformers import GenerationConfig

        sampling = sampling or Sampling()
        device = self.network.device
        given = [
            self._given(*(torch.as_tensor(np.asarray(part, np.int64)) for part in pair), foreign and len(pair[1]) > 0)
            for pair in zip(text, prefix, strict=True)
        ]
        longest = max(map(len, given))
        most = [sampling.most(len(one)) for one in text]
        for one, frames in zip(given, most, strict=True):
            self._require_room(len(one) + frames // 2)
        most = [min(frames, self.config.positions - longest) for frames in most]
        ids = torch.full((len(given), longest), self.end)
        heard = torch.zeros_like(ids)
        for row, one in enumerate(given):  # to the right, where generation goes on
            ids[row, longest - len(one) :], heard[row, longest - len(one) :] = one, 1
        settings = GenerationConfig(
            max_new_tokens=max(most),
            min_new_tokens=1,
            do_sample=sampling.temperature > 0,
            **({"temperature": sampling.temperature, "top_k": sampling.top_k} if sampling.temperature else {}),
            suppress_tokens=[*range(self.first), self.say, self.turn],
            eos_token_id=self.end,
            pad_token_id=self.end,
        )
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            spoken = self.network.generate(ids.to(device), attention_mask=heard.to(device), generation_config=settings)
        return [self._codes(row, limit) for row, limit in zip(spoken[:, longest:].cpu().numpy(), most, strict=True)]

    def room(self, text: np.ndarray, prefix: np.ndarray, foreign: bool = True, sampling: Sampling | None = None) -> int:
        """Most frames that ``generate`` gives of a text alone; one that has as many was cut off."""
        parts = (torch.as_tensor(np.asarray(part, np.int64)) for part in (text, prefix))
        given = self._given(*parts, foreign and len(prefix) > 0)
        return min((sampling or Sampling()).most(len(text)), self.config.positions - len(given))

    def _codes(self, row: np.ndarray, limit: int) -> np.ndarray:
        ends = np.flatnonzero(row == self.end)
        return row[: min([limit, *ends[:1]])] - self.first

    def parameters_count(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters())


def save_t2s(model: TextToSemantic, vocabulary: TextVocabulary, folder: str | Path, *about: Any, **more: Any) -> None:
    """Write a folder that ``load_t2s`` reads; see ``saved.save_with_text``, also for the other arguments."""
    save_with_text(model, vocabulary, folder, KIND, *about, **more)


def load_t2s(folder: str | Path) -> tuple[TextToSemantic, TextVocabulary, dict[str, Any]]:
    """Model in evaluation mode, its text vocabulary and its header; raises as ``saved.load_with_text``."""

    def build(header: dict[str, Any]) -> TextToSemantic:
        return TextToSemantic(from_mapping(T2SConfig, header["network"], str(folder)))

    return load_with_text(folder, KIND, build, lambda model: model.config.text)
