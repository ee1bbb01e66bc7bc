"""ECAPA-TDNN, a network that hears who is speaking (Desplanques, Thienpondt and Demuynck 2020, arXiv 2005.07143).

Modules bear the names of SpeechBrain's implementation, whose published weights therefore fit
(``speechtok.guidance.speaker`` reads them). Inside, activations are channel-major ``[B, C, M]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import ConfigError

MIN_FRAMES = 5
"""Reflection at the widest dilation needs one frame more than it reaches."""


@dataclass(frozen=True)
class ECAPAConfig:
    """The shape of the network; the defaults are those of ``speechbrain/spkrec-ecapa-voxceleb``."""

    bands: int = 80
    channels: int = 1024
    """Width of the blocks."""
    aggregate: int = 3072
    """Width of the frame features in front of the pooling."""
    embedding: int = 192
    dilations: tuple[int, ...] = (2, 3, 4)
    """One SE-Res2 block each."""
    scale: int = 8
    """Groups of channels in a Res2 convolution."""
    squeeze: int = 128
    attention: int = 128

    def __post_init__(self) -> None:
        if self.channels % self.scale:
            raise ConfigError(f"channels={self.channels} must be a multiple of scale={self.scale}")


class SpeakerFeatures(NamedTuple):
    """What ECAPA-TDNN hears in a batch."""

    embedding: Tensor
    """Utterance level, ``[B, embedding]``."""
    frames: Tensor
    """Frame level, in front of the pooling, ``[B, M, aggregate]``."""


class ECAPA(nn.Module):
    """Log-mel frames to speaker embeddings: a convolution, SE-Res2 blocks, aggregation, attentive statistics."""

    def __init__(self, config: ECAPAConfig | None = None):
        super().__init__()
        self.config = config = config or ECAPAConfig()
        width = config.channels
        first = TDNNBlock(config.bands, width, kernel_size=5)
        rest = [SERes2Block(width, dilation, config.scale, config.squeeze) for dilation in config.dilations]
        self.blocks = nn.ModuleList([first, *rest])
        self.mfa = TDNNBlock(width * len(rest), config.aggregate)
        self.asp = AttentiveStatistics(config.aggregate, config.attention)
        self.asp_bn = nn.BatchNorm1d(2 * config.aggregate)
        self.fc = nn.Conv1d(2 * config.aggregate, config.embedding, 1)

    def forward(self, bands: Tensor, frames: Tensor | None = None) -> SpeakerFeatures:
        """``bands[B, M, bands]``, at least ``MIN_FRAMES`` of them.

        Args:
            frames: ``[B]`` lengths of a padded batch. As in SpeechBrain they keep the padding out of the squeeze and
                of the pooling, while convolutions at the ends still see it.

        Raises:
            ConfigError: too few frames.
        """
        if bands.shape[1] < MIN_FRAMES:
            raise ConfigError(f"a speaker embedding needs at least {MIN_FRAMES} frames, got {bands.shape[1]}")
        mask = bands.new_ones(bands.shape[0], 1, bands.shape[1])
        if frames is not None:
            mask = (torch.arange(bands.shape[1], device=bands.device) < frames.to(bands.device)[:, None]).unsqueeze(1)
            mask = mask.to(bands.dtype)
        x, outputs = self.blocks[0](bands.transpose(1, 2)), []
        for block in self.blocks[1:]:
            x = block(x, mask)
            outputs.append(x)
        features = self.mfa(torch.cat(outputs, 1))
        pooled = self.asp_bn(self.asp(features, mask))
        return SpeakerFeatures(self.fc(pooled.unsqueeze(2)).squeeze(2), features.transpose(1, 2))


class TDNNBlock(nn.Module):
    """Convolution that keeps the length (reflection at the ends), ReLU, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1, dilation: int = 1):
        super().__init__()
        reach = (kernel_size - 1) * dilation // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel_size, dilation=dilation, padding=reach, padding_mode="reflect")
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``x[B, C, M] -> [B, O, M]``."""
        return self.norm(F.relu(self.conv(x)))


class Res2Block(nn.Module):
    """Channel groups convolved in turn, each with the output of the one before added (Gao et al. 2019)."""

    def __init__(self, width: int, dilation: int, scale: int):
        super().__init__()
        self.scale = scale
        group = width // scale
        self.blocks = nn.ModuleList(TDNNBlock(group, group, 3, dilation) for _ in range(scale - 1))

    def forward(self, x: Tensor) -> Tensor:
        """``x[B, C, M] -> [B, C, M]``; the first group passes unchanged."""
        first, *groups = x.chunk(self.scale, 1)
        outputs: list[Tensor] = [first]
        for index, (block, group) in enumerate(zip(self.blocks, groups, strict=True)):
            outputs.append(block(group if index == 0 else group + outputs[-1]))
        return torch.cat(outputs, 1)


class SqueezeExcitation(nn.Module):
    """Channels scaled by what their means over time say (Hu et al. 2018)."""

    def __init__(self, width: int, squeeze: int):
        super().__init__()
        self.conv1 = nn.Conv1d(width, squeeze, 1)
        self.conv2 = nn.Conv1d(squeeze, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x[B, C, M]``, ``mask[B, 1, M]``."""
        mean = (x * mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True)
        return x * torch.sigmoid(self.conv2(F.relu(self.conv1(mean))))


class SERes2Block(nn.Module):
    """Pointwise, Res2, pointwise, squeeze-excitation, and the input added."""

    def __init__(self, width: int, dilation: int, scale: int, squeeze: int):
        super().__init__()
        self.tdnn1 = TDNNBlock(width, width)
        self.res2net_block = Res2Block(width, dilation, scale)
        self.tdnn2 = TDNNBlock(width, width)
        self.se_block = SqueezeExcitation(width, squeeze)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x[B, C, M] -> [B, C, M]``."""
        return x + self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x))), mask)


class AttentiveStatistics(nn.Module):
    """Mean and deviation over time, weighted per channel by an attention that knows their plain values."""

    def __init__(self, width: int, attention: int):
        super().__init__()
        self.tdnn = TDNNBlock(3 * width, attention)
        self.conv = nn.Conv1d(attention, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x[B, C, M]``, ``mask[B, 1, M] -> [B, 2 C]``."""
        context = [s.unsqueeze(2).expand_as(x) for s in _statistics(x, mask / mask.sum(2, keepdim=True))]
        scores = self.conv(torch.tanh(self.tdnn(torch.cat([x, *context], 1))))
        weights = scores.masked_fill(mask == 0, float("-inf")).softmax(2)
        return torch.cat(_statistics(x, weights), 1)


class AAMSoftmax(nn.Module):
    """Additive angular margin softmax (Deng et al. 2019), the head ECAPA-TDNN is trained with.

    Args:
        dimension: of the embeddings.
        speakers: number of classes.
        margin: added to the angle of the right class, in radians.
        scale: of the cosines in front of the softmax.
    """

    def __init__(self, dimension: int, speakers: int, margin: float = 0.2, scale: float = 30.0):
        super().__init__()
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(speakers, dimension)))

    def cosines(self, embedding: Tensor) -> Tensor:
        """``[B, dimension] -> [B, speakers]``, without margin; the largest names the speaker."""
        return F.linear(F.normalize(embedding), F.normalize(self.weight))

    def forward(self, embedding: Tensor, speaker: Tensor) -> Tensor:
        """Mean cross-entropy of ``speaker[B]`` for ``embedding[B, dimension]``."""
        cosine = self.cosines(embedding)
        right = cosine.gather(1, speaker[:, None])
        angle = torch.acos(right.clamp(-1 + 1e-6, 1 - 1e-6))
        # Beyond pi - margin the cosine would rise again; there a linear penalty goes on falling instead.
        harder = torch.where(
            angle + self.margin <= torch.pi,
            torch.cos(angle + self.margin),
            right - self.margin * torch.sin(angle.new_tensor(self.margin)),
        )
        return F.cross_entropy(self.scale * cosine.scatter(1, speaker[:, None], harder), speaker)


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over time under weights that sum to one."""
    mean = (weights * x).sum(2)
    variance = (weights * (x - mean.unsqueeze(2)).square()).sum(2)
    return mean, variance.clamp_min(1e-12).sqrt()
