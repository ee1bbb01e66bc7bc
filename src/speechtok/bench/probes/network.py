"""The probe: vectors for tokens, a bidirectional LSTM over time, a linear head.

Sources: DASB (Mousavi et al. 2024) for the attention over levels and the sizes; SLMTokBench (Zhang et al. 2024, section
3.1) for the sum over levels and the start at code vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from speechtok.config import require_whole
from speechtok.errors import ConfigError
from speechtok.nn import code_input as nn_codes


@dataclass
class ProbeShape:
    """Sizes of a probe. The papers' width is 1024, both of the vectors and of the LSTM."""

    embedding: int = 128
    """Numbers that stand for a frame."""
    width: int = 128
    """Of the LSTM, in each direction."""
    layers: int = 2
    dropout: float = 0.2
    """Of the frames' vectors and behind every layer of the LSTM."""
    combine: Literal["attention", "sum"] = "attention"
    """How the levels of a frame become one vector: weights of a small perceptron (DASB), or their sum (SLMTokBench)."""
    start: Literal["random", "codebooks"] = "random"
    """Where the tables of codes begin: anywhere, or at the tokenizer's own code vectors or centres. They learn."""
    outputs_per_second: float = 25.0
    """Least of a CTC head: a frame that lasts longer has several outputs, or it could not name all of its characters.
    0 leaves one per frame."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "embedding", "width", "layers", section="network.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"network.dropout is {self.dropout}; give 0 or more, below 1")


class CodeInput(nn_codes.CodeInput):
    """Codes ``[B, N, Q]`` to vectors ``[B, N, E]``, with one table per level; see ``nn.code_input``."""

    def __init__(self, shape: ProbeShape, sizes: Sequence[int], vectors: Sequence[Tensor] | None = None):
        super().__init__(shape.embedding, sizes, vectors, attends=shape.combine == "attention")


class FeatureInput(nn.Module):
    """Features ``[B, N, D]`` of soft tokens to vectors ``[B, N, E]``: one linear layer, behind a fixed scale.

    Args:
        dimension: D.
    """

    def __init__(self, shape: ProbeShape, dimension: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("deviation", torch.ones(dimension))
        self.map = nn.Linear(dimension, shape.embedding)

    def fit(self, features: Iterable[np.ndarray]) -> None:
        """Take the scale from utterances ``[N, D]``."""
        frames = np.concatenate([*features]).astype(np.float32)
        self.mean.copy_(torch.from_numpy(frames.mean(0)))
        self.deviation.copy_(torch.from_numpy(frames.std(0)).clamp_min(1e-5))

    def forward(self, features: Tensor) -> Tensor:
        """``features[B, N, D] -> [B, N, E]``."""
        return self.map((features - self.mean) / self.deviation)


class TwoWays(nn.Module):
    """One layer of a bidirectional LSTM, ``x[B, N, E] -> [B, N, 2 W]``, on padded utterances.

    The backward direction hears every utterance mirrored within its own length, so padding comes last both ways and
    changes nothing. It equals torch's on packed sequences, whose gradient takes time with the square of N on a CPU.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.ahead = nn.LSTM(inputs, width, batch_first=True)
        self.back = nn.LSTM(inputs, width, batch_first=True)

    def forward(self, x: Tensor, mirror: Tensor) -> Tensor:
        """``mirror[B, N]`` as ``mirrored`` gives it."""
        back, _ = self.back(_rearranged(x, mirror))
        return torch.cat([self.ahead(x)[0], _rearranged(back, mirror)], -1)


class Probe(nn.Module):
    """Tokens to classes, one answer per utterance or one or more per frame.

    Args:
        source: a ``CodeInput`` or ``FeatureInput``.
        classes: outputs C.
        pooled: answer once, from the mean over time.
        per_frame: answers R of every frame, where it is not pooled.
    """

    def __init__(self, shape: ProbeShape, source: nn.Module, classes: int, pooled: bool, per_frame: int = 1):
        super().__init__()
        self.source, self.pooled, self.per_frame = source, pooled, per_frame
        inputs = [shape.embedding, *[2 * shape.width] * (shape.layers - 1)]
        self.layers = nn.ModuleList(TwoWays(size, shape.width) for size in inputs)
        self.dropout = nn.Dropout(shape.dropout)
        self.head = nn.Linear(2 * shape.width, classes * per_frame)

    def forward(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``[B, C]`` where pooled, else ``[B, N R, C]``; what lies in padding changes nothing.

        Args:
            rows: ``codes[B, N, Q]`` or ``features[B, N, D]``.
            lengths: frames of each utterance, ``[B]``.
        """
        lengths = lengths.to(rows.device)[:, None]
        frames = torch.arange(rows.shape[1], device=rows.device)
        mirror = mirrored(lengths, frames)
        states = self.dropout(self.source(rows))
        for layer in self.layers:
            states = self.dropout(layer(states, mirror))
        if self.pooled:
            inside = (frames < lengths)[..., None]
            return self.head((states * inside).sum(1) / lengths)
        return self.head(states).unflatten(-1, (self.per_frame, -1)).flatten(1, 2)


def mirrored(lengths: Tensor, frames: Tensor) -> Tensor:
    """Where every frame lies in the mirrored utterance, ``[B, N]``; padding stays.

    Args:
        lengths: ``[B, 1]``.
        frames: 0 to N - 1.
    """
    return torch.where(frames < lengths, lengths - 1 - frames, frames)


def _rearranged(x: Tensor, places: Tensor) -> Tensor:
    return x.gather(1, places[..., None].expand_as(x))
