"""Quantizers: from latents to codes and back. docs/quantizers.md compares the kinds."""

from __future__ import annotations

from collections.abc import Sequence

from speechtok.nn.quantizers.base import Quantized, Quantizer
from speechtok.nn.quantizers.codebook import Codebook, Step
from speechtok.nn.quantizers.config import QuantizerConfig
from speechtok.nn.quantizers.cross_scale import CrossScaleVQ
from speechtok.nn.quantizers.ema import VectorQuantizer
from speechtok.nn.quantizers.grouped import GroupedVQ, GumbelVQ
from speechtok.nn.quantizers.lloyd import kmeans
from speechtok.nn.quantizers.residual import ResidualVQ

__all__ = [
    "Codebook",
    "CrossScaleVQ",
    "GroupedVQ",
    "GumbelVQ",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "ResidualVQ",
    "Step",
    "VectorQuantizer",
    "build_quantizer",
    "kmeans",
]


def build_quantizer(
    dimension: int, sizes: Sequence[int], config: QuantizerConfig | None = None, own_space: int = 0
) -> Quantizer:
    """The quantizer that ``config`` describes, of ``len(sizes)`` levels with so many codes each.

    Args:
        dimension: D, of the latent.
        own_space: see ``ResidualVQ``.

    Raises:
        ConfigError: the settings do not fit each other.
    """
    config = config or QuantizerConfig()
    if config.kind in ("product", "grouped_rvq"):
        return GroupedVQ(dimension, sizes, config, len(sizes) if config.kind == "product" else config.groups)
    if config.kind == "gumbel":
        return GumbelVQ(dimension, sizes, config, len(sizes))
    stack = CrossScaleVQ if config.kind == "cross_scale" else ResidualVQ
    return stack(dimension, sizes, len(sizes), config, own_space)
