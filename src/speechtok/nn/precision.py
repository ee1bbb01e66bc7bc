"""A codec prepared for inference in float32 or bfloat16: the same network in the arithmetic that is fastest here.

What bfloat16 computes: the products of SEANet's convolutions and LSTM, and of the trunks of the frame codec. What
stays in float32, because it decides codes or adds up: the search of the codebooks, sums of residual branches, the
spectra and the linear maps of the frame codec, and all that leaves a network. In either precision the steps of a large
LSTM multiply integers where the processor has instructions for that (``nn.recurrent``).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechtok.errors import ConfigError
from speechtok.nn import timemajor
from speechtok.nn.codec import Codec
from speechtok.nn.fastframe import CastLinear, FastBlock
from speechtok.nn.frame import FrameDecoder, FrameEncoder, Trunk
from speechtok.nn.quantizers import Quantizer, ResidualVQ
from speechtok.nn.quantizers.ema import VectorQuantizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CPU_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")
"""Of processors that multiply matrices in bfloat16, as ``torch.cpu.get_capabilities`` names them."""
FIRST_GPU = (8, 0)
"""Compute capability from which GPUs do."""


def settled(precision: str, codec: nn.Module, device: torch.device, name: str) -> str:
    """``fp32`` or ``bf16``; ``auto`` is bf16 where the device has matrix products for it and the codec a path.

    That goes by what the device says it can do, not by a stopwatch: the same machine always gives the same codes.

    Raises:
        ConfigError: no such precision, or the codec has no path in bfloat16.
    """
    if precision not in (*DTYPES, "auto"):
        raise ConfigError(f"precision is {precision!r}; it must be fp32, bf16 or auto")
    if precision == "auto":
        return "bf16" if supports_bf16(codec) and multiplies_bf16(device) else "fp32"
    if precision == "bf16" and not supports_bf16(codec):
        raise ConfigError(f"{name} has no path in bf16; use --precision fp32 or auto")
    return precision


def supports_bf16(codec: nn.Module) -> bool:
    """Whether there is a path in bfloat16 for this codec."""
    if not isinstance(codec, Codec):
        return False
    return codec.config.backbone == "frame" or codec.config.seanet.sequence != "transformer"


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for matrix products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= FIRST_GPU
    if device.type != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(found.get(feature, False) for feature in CPU_FEATURES)
    older = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch before 2.11
    return any(getattr(torch.cpu, question, bool)() for question in older)


@torch.no_grad()
def prepared(codec: nn.Module, precision: str) -> nn.Module:
    """The codec as it is used in ``precision`` (``fp32`` or ``bf16``), with the same methods; for inference alone.

    The codec itself stays as it is and lends what does not change. Later changes of its weights are not followed.
    """
    if not supports_bf16(codec):
        return codec
    on_cpu = next(codec.buffers()).device.type == "cpu"
    dtype = DTYPES[precision]
    if codec.config.backbone == "seanet":
        if dtype == torch.float32 and not on_cpu:  # there the library's convolutions are fastest
            return codec
        parts = {"encoder": timemajor.Encoder(codec.encoder, dtype), "decoder": timemajor.Decoder(codec.decoder, dtype)}
    elif dtype == torch.float32:
        return codec
    else:
        parts = {"encoder": with_trunk(codec.encoder, dtype), "decoder": with_trunk(codec.decoder, dtype)}
    return with_parts(codec, {**parts, "quantizer": searched(codec.quantizer)})


def with_parts(module: nn.Module, parts: dict[str, nn.Module]) -> nn.Module:
    """A copy that shares everything with ``module`` but for the children ``parts``."""
    other = copy.copy(module)
    other.__dict__["_modules"] = {**module._modules, **parts}
    return other


class Search:
    """The codes of all levels of Euclidean codebooks, one product per level on norms that are computed once."""

    def __init__(self, quantizer: ResidualVQ):
        self.own = quantizer.own_space
        self.keys = [layer.embed[:, : layer.key] for layer in quantizer.layers]
        self.biases = [-0.5 * key.pow(2).sum(1) for key in self.keys]
        starts = [self.own] + [0] * (len(quantizer.layers) - 1)
        carried = zip(quantizer.layers, starts, strict=True)
        self.values = [layer.embed[:, start:].contiguous() for layer, start in carried]

    def __call__(self, latent: Tensor, levels: int | None = None, mask: Tensor | None = None) -> Tensor:
        """See ``Quantizer.encode``."""
        vectors = latent.float().flatten(0, 1)
        residual, codes = vectors[:, self.own :], []
        asked = vectors[:, : self.own] if self.own else residual
        for key, bias, values in zip(self.keys[:levels], self.biases, self.values, strict=False):
            codes.append(torch.addmm(bias, asked, key.t()).argmax(-1))
            asked = residual = residual - F.embedding(codes[-1], values)
        return torch.stack(codes).unflatten(1, latent.shape[:2]).transpose(0, 1)


def searched(quantizer: Quantizer) -> Quantizer:
    """The quantizer with ``Search``, where its levels are plain Euclidean codebooks; else itself."""
    if not isinstance(quantizer, ResidualVQ) or not all(type(layer) is VectorQuantizer for layer in quantizer.layers):
        return quantizer
    other = copy.copy(quantizer)
    other.encode = Search(quantizer)
    return other


def with_trunk(part: FrameEncoder | FrameDecoder, dtype: torch.dtype) -> nn.Module:
    """The part with its trunk's products in ``dtype``. Its sums meet float32 numbers and so stay float32."""
    trunk: Trunk = part.trunk
    blocks = [FastBlock(block, dtype) for block in trunk.blocks]
    ends = {"inputs": CastLinear(trunk.inputs, dtype, True), "outputs": CastLinear(trunk.outputs, dtype, True)}
    return with_parts(part, {"trunk": with_parts(trunk, {**ends, "blocks": nn.ModuleList(blocks)})})
