"""Losses of the codec trainer. Each returns a scalar; the trainer names, weighs and sums them.

Where SpeechTokenizer's paper (section 3.3) and its published trainer (``trainer/loss.py``) differ, both forms are
here and the recipe chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.nn.discriminators import Judgement
from speechtok.nn.mel import LogMel


class MultiScaleMel(nn.Module):
    """Distance between log-mel spectrograms of ``wave[B, T]`` pairs at several scales.

    Args:
        sample_rate: in Hz.
        windows: window and transform length of each scale, in samples.
        bands: mel bands of each scale.
        hops: samples between frames of each scale; empty means a quarter of the window.
        weights: the scales' distances are summed with these; empty means their mean.
        squared: add the mean squared difference to the mean absolute one (the paper's L1 + L2).
    """

    def __init__(
        self,
        sample_rate: int,
        windows: Sequence[int],
        bands: Sequence[int],
        hops: Sequence[int] = (),
        weights: Sequence[float] = (),
        squared: bool = False,
    ):
        super().__init__()
        hops = hops or [window // 4 for window in windows]
        self.scales = nn.ModuleList(LogMel(sample_rate, *shape) for shape in zip(windows, hops, bands, strict=True))
        self.weights, self.squared = tuple(weights), squared

    def forward(self, wave: Tensor, target: Tensor) -> Tensor:
        """Distance between reconstructions and targets of one length."""
        distances = [self._distance(scale(wave) - scale(target)) for scale in self.scales]
        if self.weights:
            return torch.stack([w * d for w, d in zip(self.weights, distances, strict=True)]).sum()
        return torch.stack(distances).mean()

    def _distance(self, difference: Tensor) -> Tensor:
        l1 = difference.abs().mean()
        return l1 + difference.square().mean() if self.squared else l1


def discriminator_loss(
    real: list[Judgement], fake: list[Judgement], form: str = "lsgan", reduction: str = "mean"
) -> Tensor:
    """What discriminators minimise, over sub-discriminators.

    ``lsgan``: real towards one, generated towards zero, least squares. ``hinge``: real above one, generated below
    minus one.
    """
    pairs = zip(real, fake, strict=True)
    return _reduce([DISCRIMINATOR[form](r.float(), f.float()) for (r, _), (f, _) in pairs], reduction)


def adversarial_loss(fake: list[Judgement], form: str = "lsgan", reduction: str = "mean") -> Tensor:
    """What the generator minimises: scores towards one (``lsgan``) or above one (``hinge``)."""
    return _reduce([GENERATOR[form](score.float()) for score, _ in fake], reduction)


def feature_loss(
    real: list[Judgement],
    fake: list[Judgement],
    form: str = "relative",
    reduction: str = "mean",
    average: Callable[[Tensor], Tensor] = lambda values: values,
) -> Tensor:
    """L1 between feature maps, over all layers of all sub-discriminators.

    ``relative`` (the paper's) divides every layer's distance by its mean absolute real feature; ``absolute`` (the
    published trainer's, which sums and doubles) does not.

    Args:
        real: judgements of the targets, without gradient.
        fake: judgements of the reconstructions.
        form: ``relative`` or ``absolute``.
        reduction: ``mean`` or ``sum``.
        average: mean over processes, so that a divided batch has the scales of the whole one.
    """
    pairs = [
        (r.float(), f.float())
        for (_, real_features), (_, fake_features) in zip(real, fake, strict=True)
        for r, f in zip(real_features, fake_features, strict=True)
    ]
    distances = [(f - r).abs().mean() for r, f in pairs]
    if form == "relative":
        sizes = average(torch.stack([r.abs().mean() for r, _ in pairs])).clamp_min(1e-6)
        distances = [distance / size for distance, size in zip(distances, sizes, strict=True)]
    return _reduce(distances, reduction)


DISCRIMINATOR = {
    "lsgan": lambda real, fake: (1 - real).square().mean() + fake.square().mean(),
    "hinge": lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
}
GENERATOR = {
    "lsgan": lambda fake: (1 - fake).square().mean(),
    "hinge": lambda fake: F.relu(1 - fake).mean(),
}


def _reduce(values: list[Tensor], reduction: str) -> Tensor:
    stacked = torch.stack(values)
    return stacked.sum() if reduction == "sum" else stacked.mean()
