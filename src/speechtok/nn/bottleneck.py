"""A quantizer inside an encoder: the layers behind it hear codes, so what the task needs is what codes learn to say.

Source: the supervised semantic tokens of CosyVoice (Du et al. 2024, arXiv 2407.05407: a VQ in the encoder of a speech
recogniser) and CosyVoice 2 (arXiv 2412.10117: FSQ in its place).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from speechtok.config import from_mapping, require_whole
from speechtok.errors import ConfigError
from speechtok.nn.quantizers import Quantized, QuantizerConfig, build_quantizer

_EAR: ContextVar[tuple[Tensor | None, list[Quantized]] | None] = ContextVar("ear", default=None)


@dataclass
class BottleneckShape:
    """Where states are quantized, and how."""

    after: int = 1
    """Transformer layer whose output is quantized, from 1; the layers behind it hear code vectors."""
    codebook_size: int = 1024
    n_q: int = 1
    """Levels: codes per frame."""
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    """Kinds with a narrow space of their own, such as ``fsq``, bring the linear maps down and up."""

    def __post_init__(self) -> None:
        require_whole(self, 1, "after", "codebook_size", "n_q", section="bottleneck.")

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each level."""
        return self.quantizer.codebook_sizes(self.codebook_size, self.n_q)

    def settled(self) -> dict[str, Any]:
        """What decides the meaning of codes, in plain types, for a model's ``config.json``."""
        sizes = {"after": self.after, "codebook_size": self.codebook_size, "n_q": self.n_q}
        return sizes | {"quantizer": self.quantizer.settled()}


class QuantizedNorm(nn.LayerNorm):
    """The norm that ends a transformer layer, and the quantizer behind it, ``[B, N, D] -> [B, N, D]``.

    States pass as they are until codes have been placed. The norm keeps the names of its weights, so those of a network
    without a bottleneck fit.
    """

    def __init__(self, norm: nn.LayerNorm, shape: BottleneckShape):
        super().__init__(norm.normalized_shape, norm.eps)
        self.load_state_dict(norm.state_dict())
        self.quantizer = build_quantizer(norm.normalized_shape[0], shape.codebook_sizes, shape.quantizer)

    def forward(self, states: Tensor) -> Tensor:
        """See the class; ``listening`` says which frames are padding and is told the codes."""
        mask, heard = _EAR.get() or (None, [])
        with torch.autocast(states.device.type, enabled=False):
            quantized = self._quantized(super().forward(states.float()), mask)
        heard.append(quantized)
        return quantized.latent

    def _quantized(self, states: Tensor, mask: Tensor | None) -> Quantized:
        if not self.quantizer.ready:
            return self.quantizer.passed(states)
        if self.training:
            return self.quantizer(states, mask)
        codes = self.quantizer.encode(states, mask=mask)
        return Quantized(self.quantizer.decode(codes), None, codes)


@contextmanager
def listening(mask: Tensor | None = None) -> Iterator[list[Quantized]]:
    """Gives a list of what bottlenecks quantize inside it, in the order in which they are called.

    Before codes are placed an entry holds the states themselves and no ``codes``. Frames outside ``mask[B, N]`` are
    padding and teach no codebook.
    """
    heard: list[Quantized] = []
    token = _EAR.set((mask, heard))
    try:
        yield heard
    finally:
        _EAR.reset(token)


def insert(hubert: Any, settings: dict[str, Any]) -> None:
    """Put the bottleneck of ``BottleneckShape.settled`` into a ``HubertModel``.

    Raises:
        ConfigError: the network has no such layer, or the quantizer does not fit its width.
    """
    shape, layers = from_mapping(BottleneckShape, settings, "bottleneck"), hubert.encoder.layers
    if shape.after > len(layers):
        raise ConfigError(f"bottleneck.after={shape.after}, but the network has {len(layers)} layers; give 1 to that")
    layer = layers[shape.after - 1]
    layer.final_layer_norm = QuantizedNorm(layer.final_layer_norm, shape)


def bottleneck_of(network: nn.Module) -> QuantizedNorm | None:
    """The bottleneck of a network, where it has one."""
    return next((module for module in network.modules() if isinstance(module, QuantizedNorm)), None)


def up_to_bottleneck(hubert: Any) -> Any:
    """A copy of a ``HubertModel`` without the layers behind its bottleneck: all that its codes depend on."""
    part = copy.deepcopy(hubert)
    after = part.config.bottleneck["after"]
    part.encoder.layers, part.config.num_hidden_layers = part.encoder.layers[:after], after
    return part
