"""A SEANet codec of SpeechTokenizer's size without training, whose codes mean something on real speech.

Its convolutions are random, scaled and shifted channel by channel so that what leaves each of them has mean 0 and
variance 1 on speech: the data-dependent start of weight normalization (Salimans and Kingma 2016, section 3). So the
signal neither fades nor grows, and the latents vary as the speech does. The codebooks are k-means centres of these
latents, each level of what the levels before it leave. Some bundled clips take no part, and agreement is counted on
those: on the vectors that it was fitted to, a codebook has no near ties.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

import speechtok
from speechtok.clips import bundled_clips
from speechtok.nn.codec import Codec, CodecConfig
from speechtok.nn.conv import Conv1d, ConvTranspose1d, fold_weight_norm
from speechtok.nn.quantizers.lloyd import kmeans

HELD_OUT = 2
"""The last so many bundled clips."""
SHIFTS = 4
"""Starts within a hop from which each recording is encoded: they give as many times the latents."""
ITERATIONS = 10
START_SECONDS = 6.0
"""Of speech that the convolutions are scaled by."""


@lru_cache(maxsize=1)
@torch.no_grad()
def official_size(more: tuple[str, ...] = (), fit: bool = True) -> Codec:
    """The codec, the same for the same arguments.

    Args:
        more: recordings that the codebooks are fitted to, beside bundled clips.
        fit: False leaves the codebooks random, which no speed and no memory depends on.
    """
    torch.manual_seed(0)
    codec = fold_weight_norm(Codec(CodecConfig())).eval()
    if fit:
        speech = waves([*(clip.path for clip in bundled_clips()[:-HELD_OUT]), *more], codec.config.sample_rate)
        start = torch.cat(speech)[: round(START_SECONDS * codec.config.sample_rate)]
        latent = standardised(codec.encoder, start[None])
        fit_codebooks(codec, latents(codec, speech))
        standardised(codec.decoder, codec.quantizer.decode(codec.quantizer.encode(latent)))
    return codec


def held_out(rate: int, seconds: float) -> list[Tensor]:
    """The clips that nothing was fitted to, ``[1, T]`` each, cut after ``seconds``."""
    paths = [clip.path for clip in bundled_clips()[-HELD_OUT:]]
    return [wave[None, : round(seconds * rate)] for wave in waves(paths, rate)]


def waves(paths: Iterable[str | Path], rate: int) -> list[Tensor]:
    """Recordings as ``[T]``."""
    return [torch.tensor(speechtok.read(path, rate).samples) for path in paths]


@torch.no_grad()
def standardised(network: nn.Module, example: Tensor) -> Tensor:
    """Scale and shift every convolution so that its channels have mean 0 and variance 1 on ``example``; the output."""

    def mend(layer: Conv1d | ConvTranspose1d, _: object, y: Tensor) -> Tensor:
        mean, scale = y.mean((0, 2)), 1 / y.std((0, 2)).clamp_min(1e-6)
        layer.weight.mul_(scale.view((-1, 1, 1) if isinstance(layer, Conv1d) else (1, -1, 1)))
        layer.bias.sub_(mean).mul_(scale)
        return (y - mean[:, None]) * scale[:, None]

    layers = [layer for layer in network.modules() if isinstance(layer, Conv1d | ConvTranspose1d)]
    hooks = [layer.register_forward_hook(mend) for layer in layers]
    try:
        return network(example)
    finally:
        for hook in hooks:
            hook.remove()


def latents(codec: Codec, speech: Sequence[Tensor]) -> Tensor:
    """``[M, D]`` of recordings ``[T]``, each from several starts."""
    steps = [round(shift * codec.config.hop / SHIFTS) for shift in range(SHIFTS)]
    return torch.cat([codec.encoder(wave[None, step:])[0] for wave in speech for step in steps])


@torch.no_grad()
def fit_codebooks(codec: Codec, vectors: Tensor) -> None:
    """K-means of ``vectors[M, D]``, level by level on what is left of them."""
    for layer in codec.quantizer.layers:
        layer.embed.copy_(kmeans(vectors, layer.codebook_size, ITERATIONS)[0])
        layer.start_statistics()
        vectors = vectors - layer.lookup(layer.nearest(vectors))


@torch.no_grad()
def explained(codec: Codec, speech: Sequence[Tensor]) -> list[float]:
    """Share of the variance of the latents of ``speech`` (``[1, T]`` each) that the first 1, 2, ... levels hold."""
    rest = torch.cat([codec.encoder(wave)[0] for wave in speech])
    whole, found = float((rest - rest.mean(0)).square().sum()), []
    for layer in codec.quantizer.layers:
        rest = rest - layer.lookup(layer.nearest(rest))
        found.append(1 - float(rest.square().sum()) / whole)
    return found
