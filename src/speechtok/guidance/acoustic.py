"""Acoustic guidance: the residual levels are made to tell what a speaker network hears (arXiv 2507.06802).

The paper's text gives an 8-head attention ("align layer") from the quantised residuals to ECAPA-TDNN features and a
KL divergence. Everything it leaves open is an option here, whose default is our reading of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.guidance.frames import CodecGrid, pool
from speechtok.nn.ecapa import SpeakerFeatures
from speechtok.nn.quantizers import Quantizer

CHOICES = {
    "guided": ("residual_sum", "all_sum", "each_residual"),
    "align": ("learned_queries", "teacher_queries", "self_attention"),
    "target": ("utterance", "frames"),
    "divergence": ("softmax", "gaussian"),
}


@dataclass
class AcousticConfig:
    """How the residual levels are taught."""

    guided: str = "residual_sum"
    """``residual_sum``: the sum of levels 2 to Q; ``all_sum``: that of every level; ``each_residual``: every one of
    levels 2 to Q by itself, the losses averaged."""
    align: str = "learned_queries"
    """What asks the quantised frames: ``learned_queries``, ``teacher_queries`` (the teacher's own frame features, so
    the weights of the attention know the target), or ``self_attention`` (the frames themselves)."""
    queries: int = 1
    """How many learned queries there are; their answers are averaged."""
    heads: int = 8
    width: int = 1024
    """Width of the attention."""
    target: str = "utterance"
    """``utterance``: the embedding of the same crop; ``frames``: the features in front of the teacher's pooling,
    averaged over each codec frame. Learned queries give one vector, so frames need another ``align``."""
    divergence: str = "softmax"
    """``softmax``: KL between softmaxes over the feature dimension; ``gaussian``: KL between normal distributions with
    these means and the deviation ``temperature``."""
    temperature: float = 1.0
    """A softmax of speaker embeddings at 1 may be nearly flat and teaches little; the logged KL and cosine tell."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"acoustic {name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")
        if self.target == "frames" and self.align == "learned_queries":
            raise ConfigError("acoustic target=frames needs align=self_attention or teacher_queries")
        if self.width % self.heads or min(self.heads, self.queries) < 1:
            raise ConfigError(
                f"acoustic width={self.width} must be a multiple of heads={self.heads}, queries at least 1"
            )
        if self.temperature <= 0:
            raise ConfigError(f"acoustic temperature is {self.temperature}; give a number above 0")


class AlignLayer(nn.Module):
    """The align layer and its losses. It is trained with the codec and thrown away after.

    Args:
        dimension: of the codec's latents, D.
        embedding: of the teacher's utterance embedding, E.
        frame_features: of the teacher's frames, F.
        grid: rate and hop of the codec.
        teacher_frame_rate: teacher frames per second.
    """

    def __init__(
        self,
        config: AcousticConfig,
        dimension: int,
        embedding: int,
        frame_features: int,
        grid: CodecGrid,
        teacher_frame_rate: float = 100.0,
    ):
        super().__init__()
        self.config, self.grid, self.teacher_frame_rate = config, grid, teacher_frame_rate
        width = config.width
        outputs = embedding if config.target == "utterance" else frame_features
        if config.align == "learned_queries":
            self.queries = nn.Parameter(torch.randn(config.queries, width) / width**0.5)
        else:
            self.ask = nn.Linear(dimension if config.align == "self_attention" else frame_features, width)
        self.attention = nn.MultiheadAttention(width, config.heads, kdim=dimension, vdim=dimension, batch_first=True)
        self.project = nn.Linear(width, outputs)

    def forward(
        self, carrier: Tensor, quantizer: Quantizer, codes: Tensor, heard: SpeakerFeatures, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses ``acoustic/kl`` and ``acoustic/cosine`` (1 - cosine), unweighted, to be weighed by the trainer.

        Args:
            carrier: ``[B, N, D]`` that gets the gradient: the encoder's output, or a straight-through estimate of it.
            quantizer: whose code vectors are looked up; they get none.
            codes: ``[B, Q, N]``.
            heard: what the frozen teacher heard in the same crops.
            mask: ``[B, N]``, True on real frames.
        """
        targets = self._targets(heard, carrier.shape[1])
        pairs = [
            self._compare(x, heard, targets, mask)
            for x in guided_latents(self.config.guided, carrier, quantizer, codes)
        ]
        divergence, similarity = (torch.stack(values).mean() for values in zip(*pairs, strict=True))
        return {"acoustic/kl": divergence, "acoustic/cosine": 1 - similarity}

    def _compare(
        self, x: Tensor, heard: SpeakerFeatures, targets: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Divergence and cosine of one guided latent ``[B, N, D]``, means over what counts."""
        predicted = self._predict(x, heard, mask).float()
        counted = mask if mask is not None and targets.ndim == 3 else predicted.new_ones(predicted.shape[:-1])
        divergence = DIVERGENCES[self.config.divergence](targets, predicted, self.config.temperature)
        similarity = F.cosine_similarity(predicted, targets, dim=-1)
        total = counted.sum().clamp_min(1)
        return (divergence * counted).sum() / total, (similarity * counted).sum() / total

    def _predict(self, x: Tensor, heard: SpeakerFeatures, mask: Tensor | None) -> Tensor:
        """``[B, N, D]`` to ``[B, E]``, or ``[B, N, F]`` where frames are the target."""
        answers, _ = self.attention(self._queries(x, heard), x, x, None if mask is None else ~mask, need_weights=False)
        if self.config.target == "frames":
            return self.project(answers)
        if mask is None or self.config.align == "learned_queries":
            return self.project(answers.mean(1))
        inside = mask[..., None].to(answers.dtype)
        return self.project((answers * inside).sum(1) / inside.sum(1).clamp_min(1))

    def _queries(self, x: Tensor, heard: SpeakerFeatures) -> Tensor:
        if self.config.align == "learned_queries":
            return self.queries.expand(len(x), -1, -1)
        return self.ask(x if self.config.align == "self_attention" else self._on_codec_frames(heard, x.shape[1]))

    def _targets(self, heard: SpeakerFeatures, frames: int) -> Tensor:
        utterance = self.config.target == "utterance"
        return (heard.embedding if utterance else self._on_codec_frames(heard, frames)).detach().float()

    def _on_codec_frames(self, heard: SpeakerFeatures, frames: int) -> Tensor:
        return pool(heard.frames, self.teacher_frame_rate, self.grid.frame_rate, frames)


def guided_latents(guided: str, carrier: Tensor, quantizer: Quantizer, codes: Tensor) -> list[Tensor]:
    """What is guided, each ``[B, N, D]``: values are code vectors, gradients reach ``carrier`` unchanged.

    The straight-through estimate is taken once around each of them. The difference of two estimates, such as that of
    all levels less that of the first, would have no gradient at all.
    """
    vectors = quantizer.vectors(codes).detach()
    if guided != "all_sum" and len(vectors) < 2:
        raise ConfigError(f"acoustic guided={guided} needs two levels or more; the codec has {len(vectors)}")
    values = {
        "residual_sum": lambda: [vectors[1:].sum(0)],
        "all_sum": lambda: [vectors.sum(0)],
        "each_residual": lambda: [*vectors[1:]],
    }[guided]()
    return [carrier + (value - carrier).detach() for value in values]


def softmax_divergence(target: Tensor, predicted: Tensor, temperature: float = 1.0) -> Tensor:
    """``KL(softmax(target / t) || softmax(predicted / t))`` over the last axis, ``[..., F] -> [...]``, in nats."""
    wanted, given = (target / temperature).log_softmax(-1), (predicted / temperature).log_softmax(-1)
    return (wanted.exp() * (wanted - given)).sum(-1)


def gaussian_divergence(target: Tensor, predicted: Tensor, deviation: float = 1.0) -> Tensor:
    """KL between normal distributions with these means and one deviation, ``[..., F] -> [...]``, in nats."""
    return (target - predicted).square().sum(-1) / (2 * deviation**2)


DIVERGENCES = {"softmax": softmax_divergence, "gaussian": gaussian_divergence}
